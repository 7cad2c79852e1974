"""This host calibrated, end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgedafl.errors import UsageError
from edgedafl.stages import calibration_of
from edgedafl.targets import find_target
from tests.conftest import assert_clean_failure, edgedafl


@pytest.mark.slow
def test_a_calibrated_host_chooses_students_and_estimates_by_itself(
    tmp_path: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEDAFL_HOME", str(tmp_path))
    done = edgedafl("device", "calibrate", "local", "--target", "x86", "--allow-contended", "--json", timeout=600)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert set(found["fits"]) == {"fp32", "int8"}
    assert all(fit["rows"] == 84 and fit["band"] < 3 for fit in found["fits"].values())
    model = calibration_of("local", find_target("x86"))
    assert model is not None and model.fingerprint["machine"]
    assert calibration_of("local", find_target("jetson")) is None
    # 1 ns fits nothing; the message is about the calibrated device.
    refused = edgedafl("distill", tiny_onnx, "--target", "x86", "--max-latency", "0.001us", "-o", tmp_path / "r")
    assert_clean_failure(refused, 2, "No student fits")


def test_tensorrt_devices_are_not_calibrated_with_hundreds_of_engines() -> None:
    assert_clean_failure(edgedafl("device", "calibrate", "local", "--target", "jetson"), 2, "cannot be calibrated")


def test_a_damaged_latency_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDAFL_HOME", str(tmp_path))
    (tmp_path / "calibrations").mkdir()
    for text in ("", "{}", '{"schema": 9}', '{"schema": 1, "fits": 3}'):
        (tmp_path / "calibrations" / "pi.json").write_text(text)
        with pytest.raises(UsageError, match="is not a latency model"):
            calibration_of("pi", find_target("rpi5"))
