"""The library as a program calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import edgedafl
from edgedafl.api import quantize
from edgedafl.errors import UsageError
from tests.conftest import EXAMPLE

DIGITS = {"input_mean": (0.1307,), "input_std": (0.3081,)}


@pytest.mark.slow
def test_a_model_goes_in_and_a_typed_result_comes_out(tmp_path: Path) -> None:
    seen: list[str] = []
    result = quantize(
        EXAMPLE / "teacher.onnx",
        target="jetson",
        eval=EXAMPLE / "sample.npz",
        output=tmp_path / "run",
        limits=edgedafl.GateConfig(max_size="100kB", min_accuracy="99.9%"),
        on_message=seen.append,
        **DIGITS,
    )
    assert seen[-3:] == ["verify", "profile", "report"]
    assert result.artifact.is_file() and result.artifact.is_relative_to(result.bundle)
    assert result.size == result.artifact.stat().st_size < 70_000
    assert result.report.is_file() and result.run == tmp_path / "run"
    assert result.holds and result.fidelity_kind == "measured on labelled images"
    assert result.fidelity is not None and result.fidelity_low is not None
    assert 0.98 < result.fidelity_low <= result.fidelity <= 1
    assert result.accuracy["teacher"] == pytest.approx(0.99, abs=0.005)
    assert result.latency is not None and result.latency_is_estimate and 1e-6 < result.latency < 1e-1
    assert result.gate is not None and [v.passed for v in result.gate.verdicts] == [True, False]
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["artifact"] == str(result.artifact) and plain["gate"]["passed"] is False


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"The call.*no_such_setting"):
        edgedafl.compress(EXAMPLE / "teacher.onnx", no_such_setting=1, output=tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        edgedafl.compress(tmp_path / "absent.onnx", output=tmp_path / "run")
