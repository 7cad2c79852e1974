"""Bundles on emulated arm64 devices: a real sshd, the real adb, ONNX Runtime for ARM under qemu.

Their times are an emulator's and say nothing about any device; what is proved is that bundles
travel, run, answer as expected on ARM and leave nothing behind.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgedafl.devices import SshDevice, run_bundle
from edgedafl.devices.ssh import CONFIG_VARIABLE
from edgedafl.errors import MeasurementError
from tests.conftest import EXAMPLE, assert_clean_failure, edgedafl, exported_run
from tests.rigs import devices as rig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Ssh]:
    reason = rig.missing("ssh", "sftp", "sshd")
    if reason:
        pytest.skip(reason)
    # Below root's home: sshd looks at who owns the folders of its keys.
    with rig.sshd(tmp_path_factory.mktemp("ssh")) as server:
        os.environ[CONFIG_VARIABLE] = str(server.config)
        yield server
        del os.environ[CONFIG_VARIABLE]


@pytest.fixture(scope="module")
def adb() -> Iterator[str]:
    reason = rig.missing("adb")
    if reason:
        pytest.skip(reason)
    with rig.adb_device() as address:
        yield address


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_onnx: Path) -> Path:
    return exported_run(tmp_path_factory.mktemp("device") / "run", tiny_onnx, "rpi5")


def leftovers(root: Path) -> list[str]:
    return [p.name for place in ("tmp", "data/local/tmp", "root") for p in (root / place).glob("*")]


def test_check_finds_an_arm_device_that_runs_the_bundles(ssh: rig.Ssh) -> None:
    done = edgedafl("device", "check", ssh.address, "--target", "raspberry-pi", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["facts"]["machine"] == "aarch64"
    assert found["facts"]["onnxruntime"]
    assert "asimddp" in next(f["detail"] for f in found["findings"] if f["name"] == "processor")
    assert any(f["name"] == "emulated" for f in found["findings"])
    wrong = edgedafl("device", "check", ssh.address, "--target", "jetson")
    assert wrong.code == 3
    assert "trtexec" in wrong.out


def test_a_bundle_runs_behind_ssh_and_leaves_nothing(ssh: rig.Ssh, run: Path) -> None:
    done = edgedafl("profile", run, "--device", ssh.address, "--allow-contended", "--layers", "--json")
    assert done.code == 0, done.err
    measured = json.loads(done.out)["measured"]
    assert measured["kind"] == "emulated"
    assert measured["environment"]["machine"] == "aarch64"
    assert all(check["passed"] and check["same_class"] == 1 for check in measured["checks"].values())
    assert measured["processes"] == 3
    assert all(s["count"] >= 1024 for s in measured["summaries"].values())
    assert any("emulated" in warning for warning in measured["warnings"])
    assert {row["operator"] for row in measured["layers"]["int8"]} >= {"QLinearConv"}
    assert leftovers(ssh.root) == []
    report = (run / "report.md").read_text()
    assert "these times say nothing about a device" in report
    # An emulator's time is none that a limit can be held against.
    gate = edgedafl("gate", run, "--max-latency", "1h")
    assert gate.code != 0


def test_weights_of_few_bits_run_in_integers_on_arm_and_answer_the_same(ssh: rig.Ssh, tmp_path: Path) -> None:
    teacher, run = EXAMPLE / "teacher.onnx", tmp_path / "run"
    pixels = ("--input-mean", "0.1307", "--input-std", "0.3081")
    done = edgedafl("quantize", teacher, *pixels, "--target", "rpi5", "--weight-bits", "4.5", "-o", run)
    assert done.code == 0, done.err
    bundle = run / "bundles" / "rpi5"
    assert (bundle / "model.int8.onnx").stat().st_size < 0.17 * teacher.stat().st_size
    manifest, readme = json.loads((bundle / "manifest.json").read_text()), (bundle / "README.md").read_text()
    assert manifest["loading_bytes"] > 20 * 50_000 and "takes 1.3" in readme
    found = edgedafl("profile", bundle, "--device", ssh.address, "--quick", "--allow-contended", "--layers", "--json")
    assert found.code == 0, found.err
    measured = json.loads(found.out)["measured"]
    assert all(check["passed"] and check["same_class"] == 1 for check in measured["checks"].values())
    operators = {row["operator"] for row in measured["layers"]["int8"]}
    assert "QLinearConv" in operators and not operators & {"Conv", "Div", "Mod", "Gather"}, "taken apart when loaded"


def test_a_bundle_runs_through_adb_and_leaves_nothing(adb: str, run: Path) -> None:
    assert edgedafl("export", run, "--target", "phone").code == 0
    listed = edgedafl("device", "list")
    assert adb in listed.out and "rig_arm64" in listed.out
    done = edgedafl(
        "profile", run / "bundles" / "android-arm64", "--device", adb, "--quick", "--allow-contended", "--json"
    )
    assert done.code == 0, done.err
    measured = json.loads(done.out)["measured"]
    assert measured["environment"]["machine"] == "aarch64"
    assert all(check["passed"] for check in measured["checks"].values())
    assert leftovers(rig.arm_root()) == []


def test_a_named_device_and_one_bundle_left_there(
    ssh: rig.Ssh, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEDAFL_HOME", str(tmp_path))
    assert edgedafl("device", "add", "board", ssh.address, "--target", "rpi5").code == 0
    done = edgedafl("profile", run, "--device", "board", "--quick", "--allow-contended", "--keep")
    assert done.code == 0, done.err
    (left,) = (ssh.root / "tmp").glob("edgedafl.*")
    assert (left / "latency.json").is_file()
    shutil.rmtree(left)
    assert (run / "profile" / "board.json").is_file()


def test_a_broken_connection_costs_nothing_but_time(ssh: rig.Ssh, run: Path, tmp_path: Path) -> None:
    device = SshDevice(ssh.address)
    said: list[str] = []
    cut = threading.Event()

    def saboteur() -> None:
        while not any("running bench" in text for text in said):
            time.sleep(0.05)
        time.sleep(2)
        ssh.cut()
        cut.set()

    thread = threading.Thread(target=saboteur)
    thread.start()
    result = tmp_path / "latency.json"
    carried = run_bundle(
        device, run / "bundles" / "rpi5", ["--processes", "2"], result, timeout=300, on_message=said.append
    )
    thread.join()
    device.close()
    assert cut.is_set()
    assert any("Trying again" in text for text in said), said
    assert carried.code == 0
    assert json.loads(result.read_text())["processes"] == 2
    assert leftovers(ssh.root) == []


def test_what_was_measured_before_the_time_ran_out_is_kept(ssh: rig.Ssh, run: Path, tmp_path: Path) -> None:
    device = SshDevice(ssh.address)
    result = tmp_path / "latency.json"
    with pytest.raises(MeasurementError, match="did not end within 20 s"):
        run_bundle(device, run / "bundles" / "rpi5", ["--processes", "8"], result, timeout=20)
    device.close()
    kept = json.loads((tmp_path / "latency.partial.json").read_text())
    assert kept["processes"] >= 1
    assert kept["samples_ns"]["int8"]
    assert not result.exists()
    assert leftovers(ssh.root) == []
    time.sleep(1)
    assert subprocess.run(["pgrep", "-f", "./bench --processes 8"], check=False).returncode == 1  # nothing runs on


def test_a_changed_bundle_is_refused_on_the_device(ssh: rig.Ssh, run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "bundle"
    shutil.copytree(run / "bundles" / "rpi5", broken)
    blob = bytearray((broken / "model.int8.onnx").read_bytes())
    blob[-1] ^= 1
    (broken / "model.int8.onnx").write_bytes(blob)
    device = SshDevice(ssh.address)
    with pytest.raises(MeasurementError, match="was changed after the bundle was made"):
        run_bundle(device, broken, ["--quick"], tmp_path / "l.json", timeout=100)
    device.close()


def test_an_unknown_host_key_is_refused(
    ssh: rig.Ssh, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = (ssh.folder / "other.pub").read_text().split()[:2]
    port = ssh.address.rsplit(":", 1)[1]
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {' '.join(other)}\n")
    config = tmp_path / "ssh.conf"
    # Even a careless configuration does not switch the check off.
    text = ssh.config.read_text().replace(f"{ssh.folder}/known", str(tmp_path / "known"))
    config.write_text(f"{text}  StrictHostKeyChecking no\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    done = edgedafl("profile", run, "--device", ssh.address, "--quick")
    assert_clean_failure(done, 4, "host key", "ssh-keygen -lf")


def test_a_key_that_is_not_accepted_and_a_device_that_is_off(
    ssh: rig.Ssh, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "ssh.conf"
    config.write_text(ssh.config.read_text().replace(f"{ssh.folder}/client", f"{ssh.folder}/other"))
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    assert_clean_failure(edgedafl("device", "check", ssh.address), 4, "does not accept this user's key", "ssh-copy-id")
    off = f"ssh://root@127.0.0.1:{rig.free_port()}"
    assert_clean_failure(edgedafl("device", "check", off), 4, "cannot be reached", "Connection refused")


def test_adb_says_what_is_attached(adb: str, run: Path) -> None:
    wrong = edgedafl("device", "check", "adb:nothing-here")
    assert_clean_failure(wrong, 4, "'nothing-here' is not attached", adb.removeprefix("adb:"))
