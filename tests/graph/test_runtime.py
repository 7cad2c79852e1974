"""ONNX Runtime's sessions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from edgedafl.graph import runtime
from edgedafl.graph.runtime import open_session

CHANNELS = 16


def largest_sum() -> onnx.ModelProto:
    """A quantized convolution of one pixel whose products are all as large as eight bits allow."""
    total = CHANNELS * 255 * 127
    values = {
        "one": np.float32(1),
        "unsigned": np.uint8(0),
        "signed": np.int8(0),
        "weight": np.full((8, CHANNELS, 1, 1), 127, np.int8),
        "scale": np.float32(total / 255),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "one", "unsigned"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "unsigned"], ["x"]),
        helper.make_node("DequantizeLinear", ["weight", "one", "signed"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "scale", "unsigned"], ["y"]),
        helper.make_node("DequantizeLinear", ["y", "scale", "unsigned"], ["answer"]),
    ]
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, (1, CHANNELS, 1, 1))
    answer = helper.make_tensor_value_info("answer", onnx.TensorProto.FLOAT, (1, 8, 1, 1))
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "sum", [image], [answer], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_sums_of_eight_bits_do_not_overflow_on_processors_without_vnni() -> None:
    session = open_session(largest_sum())
    (answer,) = session.run(None, {"image": np.full((1, CHANNELS, 1, 1), 255, np.float32)})
    assert np.allclose(answer, CHANNELS * 255 * 127)


@pytest.mark.parametrize(
    ("flags", "exact"), [("fpu avx2 avx512f", False), ("fpu avx512f avx512_vnni", True), ("fpu avx2 avx_vnni", True)]
)
def test_the_slow_way_is_taken_only_where_sums_would_overflow(
    flags: str, exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbogomips\t: 1\n")
    monkeypatch.setattr(runtime, "_CPUINFO", cpuinfo)
    runtime._adds_exactly.cache_clear()
    try:
        options = runtime._options(1, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
        if exact:
            with pytest.raises(RuntimeError, match="quantprecision"):
                options.get_session_config_entry("session.x64quantprecision")
        else:
            assert options.get_session_config_entry("session.x64quantprecision") == "1"
    finally:
        runtime._adds_exactly.cache_clear()


def test_a_machine_that_does_not_tell_takes_the_slow_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_CPUINFO", tmp_path / "missing")
    runtime._adds_exactly.cache_clear()
    try:
        assert not runtime._adds_exactly()
    finally:
        runtime._adds_exactly.cache_clear()
