"""Units, preprocessing, configuration, run directories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgedafl.allocator import release_memory
from edgedafl.config import CompressConfig, validated
from edgedafl.errors import EdgeDaflError, EnvironmentMissingError, ExitCode, UsageError, exit_code_for
from edgedafl.files import write_atomic
from edgedafl.preprocess import Preprocess
from edgedafl.runs import AgreementReport, Progress, QuantizeResult, RunDirectory
from edgedafl.units import format_bytes, format_duration, parse_bytes, parse_duration, parse_share


@pytest.mark.parametrize(
    ("text", "seconds"), [("10m", 600), ("5ms", 0.005), ("1.5h", 5400), ("90", 90), (3, 3), ("20us", 2e-5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "size"), [("1.5MB", 1_500_000), ("64KiB", 65536), ("100", 100), ("2 kB", 2000)])
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(("text", "share"), [("98.5%", 0.985), ("0.5", 0.5), (1, 1)])
def test_shares(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_duration, "5 parsecs"),
        (parse_bytes, "-1"),
        (parse_share, "150%"),
        (parse_share, "1.2"),
        (parse_bytes, ""),
    ],
)
def test_nonsense_is_refused(parse, text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_formatting() -> None:
    assert [format_bytes(v) for v in (12, 26_500, 1.5e6)] == ["12 B", "26.5 kB", "1.5 MB"]
    assert [format_duration(v) for v in (8.5e-4, 3.21e-3, 125, 3725)] == ["850 µs", "3.21 ms", "2:05", "1:02:05"]


def test_errors_map_to_exit_codes_in_one_place() -> None:
    codes = {cls.__name__: cls.exit_code for cls in EdgeDaflError.__subclasses__()}
    assert codes["UsageError"] == ExitCode.USAGE
    assert codes["InterruptedRunError"] == 130
    assert exit_code_for(KeyboardInterrupt()) == 130
    assert exit_code_for(ZeroDivisionError()) == 70


def test_pixels_survive_model_space_and_back() -> None:
    preprocess = Preprocess.from_mean_std((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 3)
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, -1, -1)
    assert torch.equal(preprocess.to_pixels(preprocess.from_pixels(pixels)), pixels)
    expected = (100 / 255 - 0.456) / 0.224
    assert float(preprocess.from_pixels(pixels)[0, 1].reshape(-1)[100]) == pytest.approx(expected, abs=1e-5)
    again = Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict())))
    assert again == preprocess
    data = preprocess.to_dict()
    assert 100 * data["scale"][1] + data["offset"][1] == pytest.approx(expected)


def test_configuration_says_which_key_is_wrong() -> None:
    with pytest.raises(UsageError) as caught:
        validated(CompressConfig, {"max_siez": 1}, "here")
    assert "'max_siez'" in caught.value.message
    assert "'max_size'" in caught.value.hint
    with pytest.raises(UsageError, match="seed"):
        validated(CompressConfig, {"seed": "x"}, "here")
    assert CompressConfig(preset="quick").seconds == 60
    assert CompressConfig(steps=5).seconds is None
    assert CompressConfig(steps=5, time_budget="1m").seconds == 60


def test_atomic_writes_leave_nothing_half_written(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b.txt", "text")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.txt"]
    with pytest.raises(EnvironmentMissingError, match="cannot be written"):
        write_atomic(Path("/proc/nothing/x"), "text")


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    """A file system of 64 kB, mounted for the test where that is allowed."""
    import subprocess

    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        write_atomic(place / "file", b"old")
        with pytest.raises(EnvironmentMissingError) as caught:
            write_atomic(place / "file", b"0" * 200_000)
        assert "Free space" in caught.value.hint
        assert (place / "file").read_bytes() == b"old"
        assert [p.name for p in place.iterdir()] == ["file"]
        with pytest.raises(EnvironmentMissingError, match="metrics"):
            RunDirectory(place).append_metrics({"x": "0" * 200_000})
    finally:
        subprocess.run(["umount", str(place)], check=False)


def test_stages_are_current_only_while_inputs_and_files_are(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    file = run.path / "out.bin"
    write_atomic(file, b"1")
    found = QuantizeResult("int8", agreements={"int8": 0.99})
    run.finish("quantize", "inputs-1", [file], found)
    assert run.current("quantize", "inputs-1", QuantizeResult) == found
    assert run.current("quantize", "inputs-2", QuantizeResult) is None
    assert run.current("other", "inputs-1", QuantizeResult) is None
    file.write_bytes(b"2")
    assert run.current("quantize", "inputs-1", QuantizeResult) is None
    assert run.result("quantize", QuantizeResult) == found


def test_a_run_directory_is_held_by_one_process(tmp_path: Path) -> None:
    run, again = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "run")
    with run.locked(), pytest.raises(UsageError, match="in use"), again.locked():
        pass
    with again.locked():
        pass


def test_metrics_cut_short_by_a_kill_are_skipped(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    first = Progress(1, 0.5, 2.0, {"distillation": 0.1}, AgreementReport({"priors": 0.9}, 0.9, 0.9), 10.0, 100)
    run.append_metrics(first.to_dict())
    with run.metrics_path.open("a") as stream:
        stream.write('{"step": 2, "los')
    assert run.read_metrics() == [first]


def test_freed_memory_is_kept_where_glibc_is_at_hand() -> None:
    """Two large blocks in turn: the system is asked for pages once."""
    code = (
        "import resource, sys; from edgedafl.allocator import keep_freed_memory\n"
        "kept = keep_freed_memory() if sys.argv[1] == 'keep' else True\n"
        "for _ in range(40): bytearray(40_000_000)\n"
        "print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt)"
    )
    found = {}
    for mode in ("keep", "leave"):
        done = subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True, check=True)
        kept, faults = map(int, done.stdout.split())
        found[mode] = faults
        if not kept:
            pytest.skip("another C library")
    assert found["keep"] < 0.2 * found["leave"]


def test_the_simplifier_is_silent_even_in_cpp(capfd: pytest.CaptureFixture[str]) -> None:
    from edgedafl.graph.simplify import _silent

    with _silent():
        os.write(2, b"WARNING: left alone")
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_goes_back_to_the_system() -> None:
    def resident() -> int:
        return int(
            next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line).split()[1]
        )

    blocks = [bytearray(100_000) for _ in range(1000)]  # below the size that is mapped by itself
    last = bytearray(100_000)  # behind them: the heap cannot shrink from its end
    full = resident()
    del blocks
    release_memory()
    assert resident() < full - 50_000  # kB
    assert len(last) == 100_000
