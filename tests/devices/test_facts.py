"""What devices say of themselves, on recorded system folders; and what is made of it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from edgedafl.devices import DeviceFacts, LocalDevice, check_device, facts_script, parse_facts, read_facts
from edgedafl.targets import find_target
from tests.conftest import ROOT

ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\x00",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimddp asimdhp\nCPU part\t: 0xd42\n\nprocessor\t: 1\n"
    "Features\t: fp asimd asimddp asimdhp\nCPU part\t: 0xd42\n",
    "proc/meminfo": "MemTotal:        7802740 kB\nMemFree: 1 kB\n",
    "proc/loadavg": "0.31 0.20 0.11 1/200 999\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1510400\n",
    "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": "1728000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpufreq/policy0/related_cpus": "0 1\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "52843\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "passive\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "99000\n",
    "sys/class/hwmon/hwmon1/name": "ina3221\n",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon1/in1_input": "5080\n",
    "sys/class/hwmon/hwmon1/curr1_input": "920\n",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/class/hwmon/hwmon1/in2_input": "5072\n",
    "sys/class/hwmon/hwmon1/curr2_input": "104\n",
    "sys/class/hwmon/hwmon0/name": "pwmfan\n",
}


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    for name, text in ORIN.items():
        path = tmp_path / "orin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "orin"


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def facts_of(sysroot: Path, programs: Path | None = None) -> DeviceFacts:
    path = f"{programs}:{os.environ['PATH']}" if programs else os.environ["PATH"]
    environment = {**os.environ, "SYSROOT": str(sysroot), "PATH": path}
    done = subprocess.run(
        ["sh", "-s"], input=facts_script(), capture_output=True, text=True, env=environment, check=True
    )
    return parse_facts(done.stdout)


def test_a_jetson_is_read_from_its_system_folders(orin: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    program(programs, "nvpmodel", 'printf "NV Power Mode: 15W\\n0\\n"')
    program(programs, "trtexec", 'echo "&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --help"')
    program(programs, "jetson_clocks", 'printf "SOC family:tegra234  Machine:Orin Nano\\nGPU MinFreq=306000000\\n"')
    facts = facts_of(orin, programs)
    assert facts["board"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert facts["l4t"].startswith("# R36 (release), REVISION: 4.3")
    assert facts["release"] == "Ubuntu 22.04.5 LTS"
    assert facts["cores"] == "2"
    assert "asimddp" in facts.features
    assert facts["clock.policy0"] == "1510400 of 1728000 kHz, schedutil, cores 0 1"
    assert facts.temperatures == {"cpu-thermal": 52.843}
    assert facts["throttles_at.cpu-thermal"] == "99000"
    assert facts.group("power_mw") == {"VDD_IN": str(5080 * 920 // 1000), "VDD_CPU_GPU_CV": str(5072 * 104 // 1000)}
    assert facts["power_mode"] == "NV Power Mode: 15W 0"
    assert "GPU MinFreq=306000000" in facts["jetson_clocks"]
    assert (facts["trtexec"], facts["tensorrt"]) == (str(programs / "trtexec"), "100300")


def test_a_raspberry_pi_and_a_phone_say_that_they_throttle(orin: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    program(programs, "vcgencmd", "echo throttled=0x50005")
    program(
        programs,
        "getprop",
        'case $1 in ro.product.model) echo "Pixel 8";; ro.product.manufacturer) echo Google;; *) echo 14;; esac',
    )
    program(programs, "dumpsys", 'printf "IsStatusOverride: false\\nThermal Status: 2\\n"')
    facts = facts_of(orin, programs)
    assert facts["throttled"] == "0x50005"
    assert facts["board"] == "Google Pixel 8"
    assert facts["release"] == "Android 14"
    found = {f.name: f for f in check_device(facts, LocalDevice())}
    assert found["throttled"].ok is None and "restart" in found["throttled"].remedy
    assert found["thermal status"].remedy == "Let it cool."


def values(**changes: str) -> DeviceFacts:
    usual = {
        "machine": "aarch64", "system": "Linux 6.6", "cpu_features": "asimd asimddp", "cpu_parts": "0xd0b", "cores": "4",
        "free_kb": "900000", "scratch": "/tmp", "python": "3.11.2", "numpy": "1.26", "onnxruntime": "1.20", "load": "0.1",
    }  # fmt: skip
    merged = {**usual, **{k.replace("__", "."): v for k, v in changes.items()}}
    return DeviceFacts({k: v for k, v in merged.items() if v})


@pytest.mark.parametrize(
    ("facts", "target", "name", "remedy"),
    [
        (values(machine="x86_64"), "rpi5", "system", "choose another target"),
        (values(free_kb="2000"), "rpi5", "space", "TMPDIR"),
        (values(python=""), "rpi5", "python", "--python"),
        (
            values(onnxruntime="", missing__onnxruntime="No module named 'onnxruntime'"),
            "rpi5",
            "onnxruntime",
            "pip install",
        ),
        (values(), "jetson", "trtexec", "JetPack"),
        (values(trtexec="/usr/bin/trtexec", tensorrt="80501"), "jetson", "trtexec", "JetPack 6.1"),
    ],
)
def test_what_is_missing_is_named_with_what_mends_it(facts: DeviceFacts, target: str, name: str, remedy: str) -> None:
    bad = [f for f in check_device(facts, LocalDevice(), find_target(target)) if f.ok is False]
    assert [f.name for f in bad] == [name]
    assert remedy in bad[0].remedy


def test_what_only_matters_for_the_figures_is_no_failure() -> None:
    facts = values(
        cpu_features="asimd", load="3.9", clock__policy0="600000 of 1500000 kHz, ondemand, cores 0 1 2 3",
        temperature__soc="78500", throttles_at__soc="80000",
    )  # fmt: skip
    found = {f.name: f for f in check_device(facts, LocalDevice(), find_target("rpi4"))}
    assert not [f for f in found.values() if f.ok is False]
    assert "no dot-product" in found["processor"].detail
    assert "scaling_governor" in found["clock policy0"].remedy
    assert found["heat soc"].ok is None and "throttles at 80" in found["heat soc"].detail
    assert found["load"].remedy


def test_a_healthy_device_has_nothing_to_mend() -> None:
    found = check_device(values(), LocalDevice(), find_target("rpi5"))
    assert all(f.ok and not f.remedy for f in found)


def test_this_machine_can_be_asked() -> None:
    facts = read_facts(LocalDevice())
    assert facts["machine"] == os.uname().machine
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["numpy"]


def bench_module() -> ModuleType:
    path = ROOT / "exporters" / "edgedafl_exporters" / "templates" / "bench_cpu.py"
    loader = SourceFileLoader("bench_cpu", str(path))
    spec = importlib.util.spec_from_loader("bench_cpu", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_bench_watches_heat_clocks_and_power(orin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSROOT", str(orin))
    assert bench_module().watch() == {
        "temperatures": {"cpu-thermal": 52.843},
        "clocks_khz": {"policy0": 1510400},
        "power_mw": {"VDD_IN": 4673, "VDD_CPU_GPU_CV": 527},
    }


def test_facts_survive_as_json() -> None:
    json.dumps(read_facts(LocalDevice()).values)
