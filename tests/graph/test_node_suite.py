"""The official ONNX node tests, restricted to operators in our table.

Every case that cannot run is listed below with its reason; a case that fails and is not listed,
and one that is listed and passes, both fail this test.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from edgedafl.graph.executor import OnnxModule, unsupported_nodes

if TYPE_CHECKING:
    from onnx.backend.test.case.test_case import TestCase

pytestmark = pytest.mark.slow

# What image classifiers carry; 4-bit and 8-bit floats, strings and complex numbers are not among it.
_OUR_TYPES = {
    onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL,
    onnx.TensorProto.UINT8, onnx.TensorProto.INT8, onnx.TensorProto.UINT16, onnx.TensorProto.INT16,
}  # fmt: skip

# Reasons, by the beginning of a test's name.
EXPLAINED: dict[str, str] = {
    "test_batchnorm_": "training mode: refused, a teacher is exported in inference mode",
    "test_training_dropout": "training mode: a teacher's dropout is off",
    "test_maxpool_with_argmax_2d_precomputed_strides": "column-major indices, which no classifier asks for",
    "test_resize_tf_crop_and_resize": "reads a region of interest; refused",
    "test_resize_downsample_scales_linear_align_corners": "the corner rule for fractional sizes is ONNX Runtime's",
    "test_resize_downsample_scales_cubic_align_corners": "the corner rule for fractional sizes is ONNX Runtime's",
    "test_quantizelinear_blocked_symmetric": "16-bit blocks of one scale in a scalar zero point's type",
}


@dataclass(frozen=True)
class Outcome:
    """What became of one case: `passed`, or why not."""

    name: str
    ops: tuple[str, ...]
    reason: str


def cases() -> list[TestCase]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for case in collect_testcases(None) if case.model is not None]


def is_ours(case) -> bool:
    """Operators in our table, at least one float tensor fed, types that classifiers carry."""
    graph = case.model.graph
    if unsupported_nodes(graph) or case.model.functions:
        return False
    kinds = [i.type.tensor_type.elem_type for i in [*graph.input, *graph.output] if i.type.HasField("tensor_type")]
    if len(kinds) != len(graph.input) + len(graph.output) or not set(kinds) <= _OUR_TYPES:
        return False
    attention = [node for node in graph.node if node.op_type == "Attention"]
    if any(any(n.input[4:]) or any(n.output[1:]) or any("window" in a.name for a in n.attribute) for n in attention):
        return False  # caches and windows of language models
    domains = {node.domain for node in graph.node}
    feeds = [np.asarray(array) for array in case.data_sets[0][0]]
    images = [f for f in feeds if f.dtype == np.float32 and f.ndim]
    return bool(images) and domains <= {"", "ai.onnx"}


def run_case(case) -> str:
    """Empty when the answers are right."""
    module = OnnxModule(case.model).eval()
    for inputs, expected in case.data_sets:
        feeds = {}
        for name, array in zip(module.input_names, inputs, strict=False):
            # Shapes, axes and other whole numbers are host values; images are data.
            is_data = np.asarray(array).dtype.kind == "f" and np.asarray(array).ndim > 0
            feeds[name] = torch.from_numpy(np.array(array)) if is_data else np.asarray(array)
        found = module.run(feeds)
        for name, want in zip(module.output_names, expected, strict=True):
            want = np.asarray(want)
            have = found[name].detach().numpy()
            if have.shape != want.shape:
                return f"shape {have.shape} instead of {want.shape}"
            if not np.allclose(have.astype(np.float64), want.astype(np.float64), rtol=1e-3, atol=1e-4, equal_nan=True):
                return f"off by {np.abs(have.astype(np.float64) - want.astype(np.float64)).max():.3g}"
    return ""


def outcomes() -> list[Outcome]:
    results = []
    for case in cases():
        if not is_ours(case):
            continue
        ops = tuple(node.op_type for node in case.model.graph.node)
        try:
            reason = run_case(case)
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        results.append(Outcome(case.name, ops, reason))
    return results


def test_official_node_tests() -> None:
    results = outcomes()
    assert len(results) > 500
    failed = {r.name: r.reason for r in results if r.reason}
    share = 1 - len(failed) / len(results)
    unexplained = {n: r for n, r in failed.items() if not any(n.startswith(p) for p in EXPLAINED)}
    assert not unexplained, unexplained
    stale = [prefix for prefix in EXPLAINED if not any(name.startswith(prefix) for name in failed)]
    assert not stale, stale
    assert share >= 0.97, Counter(failed.values()).most_common(10)


if __name__ == "__main__":
    found = outcomes()
    for outcome in found:
        if outcome.reason:
            print(outcome.name, outcome.ops, outcome.reason[:110])
    print(len(found), "cases,", sum(not o.reason for o in found), "passed")
