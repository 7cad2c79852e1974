"""Two models measured in turn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.conftest import assert_clean_failure, edgedafl

Save = Callable[..., Path]


def convolutions(count: int, side: int = 32) -> onnx.ModelProto:
    weights = ",".join(f"{v:.3f}" for v in np.random.default_rng(0).normal(size=16 * 16 * 9) / 20)
    middle = " ".join(f"x{i + 1} = Conv <pads = [1, 1, 1, 1]> (x{i}, w)" for i in range(count))
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[1,16,{side},{side}] x0) => (float[1,16] y) '
        f"<float[16,16,3,3] w = {{{weights}}}> {{ {middle} p = GlobalAveragePool(x{count}) y = Flatten(p) }}"
    )


def test_the_ratio_of_a_model_to_itself_and_to_half_of_it(save: Save) -> None:
    one, two = save(convolutions(2), "one.onnx"), save(convolutions(8), "two.onnx")
    quick = ("--quick", "--allow-contended", "--json")
    same = edgedafl("profile", one, "--against", one, "--max-slowdown", "50%", *quick)
    assert same.code == 0 and abs(same.json["median"]) < 0.3, same.out
    slower = edgedafl("profile", two, "--against", one, "--max-slowdown", "50%", *quick)
    assert (slower.code, slower.json["passed"]) == (1, False)
    assert slower.json["low"] <= slower.json["median"] <= slower.json["high"]
    assert slower.json["median"] > 1
    faster = edgedafl("profile", one, "--against", two, "--max-slowdown", "0%", "--quick", "--allow-contended")
    assert faster.code == 0 and "pass  slowdown" in faster.out


def test_what_cannot_be_compared_is_said(save: Save) -> None:
    one, other = save(convolutions(2), "one.onnx"), save(convolutions(2, 16), "other.onnx")
    assert_clean_failure(edgedafl("profile", one, "--against", other), 2, "different shapes: 16x16x16 and 16x32x32")
    assert_clean_failure(edgedafl("profile", one, "--max-slowdown", "1%"), 2, "needs --against")


@pytest.mark.parametrize("name", ["none.onnx", "folder"])
def test_missing_ones(save: Save, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    assert edgedafl("profile", save(convolutions(1)), "--against", tmp_path / name).code == 2
