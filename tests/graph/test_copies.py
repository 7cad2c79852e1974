"""Rewrites of a graph give a copy: what they are given stays as it was."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedafl.graph.batch import free_batch
from edgedafl.graph.channel_order import fold_channel_order, turn_channels
from edgedafl.graph.compact import compact
from edgedafl.graph.edit import average_as_pooling, clamp_ir, fix_batch, strip_metadata
from edgedafl.graph.half import to_half
from edgedafl.graph.needed import drop_unneeded
from edgedafl.graph.spell_out import spell_out
from edgedafl.graph.tame import floats_for, tamed
from edgedafl.stages.graphs import for_target
from edgedafl.targets import find_target

_SHAPES = {"image": (1, 3, 4, 4), "turned": (1, 3, 4, 4), "seen": (1, 2, 4, 4), "mean": (1, 2, 1, 1), "logits": (1, 2)}


def network() -> onnx.ModelProto:
    """A graph in which each of the rewrites finds something to do."""
    weights = {
        "order": np.array([2, 1, 0], np.int64),
        "weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3, 1, 1),
        "bias": np.array([0.5, -np.inf], np.float32),
        "wide": np.ones(2, np.float64),
        "axes": np.array([2, 3], np.int64),
        "rows": np.array([1, 2], np.int64),
        "unread": np.ones(3, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["image", "order"], ["turned"], axis=1),
        helper.make_node("Conv", ["turned", "weight", "bias"], ["seen"], doc_string="/home/somebody/net.py"),
        helper.make_node("Gelu", ["seen"], ["curved"]),
        helper.make_node("ReduceMean", ["curved", "axes"], ["mean"], keepdims=1),
        helper.make_node("Reshape", ["mean", "rows"], ["logits"]),
        helper.make_node("Identity", ["wide"], ["aside"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 4, 4])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "small", [image], [logits], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=11)


REWRITES: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "average_as_pooling": average_as_pooling,
    "clamp_ir": lambda model: clamp_ir(model, 8),
    "drop_unneeded": lambda model: drop_unneeded(model, {"logits"}),
    "fix_batch": lambda model: fix_batch(model, 1),
    "floats_for": lambda model: floats_for(model, {TensorProto.DOUBLE}),
    "fold_channel_order": lambda model: fold_channel_order(model, "image"),
    "free_batch": lambda model: free_batch(model, _SHAPES),
    "spell_out": lambda model: spell_out(model, lambda: _SHAPES),
    "strip_metadata": strip_metadata,
    "tamed": tamed,
    "to_half": to_half,
    "turn_channels": lambda model: turn_channels(model, "image", "blue", "blue_order"),
}


@pytest.mark.parametrize("name", REWRITES)
def test_a_rewrite_changes_its_copy_and_not_what_it_was_given(name: str) -> None:
    given = network()
    before = given.SerializeToString(deterministic=True)
    rewritten = REWRITES[name](given)
    assert given.SerializeToString(deterministic=True) == before
    assert rewritten.SerializeToString(deterministic=True) != before, "the graph shows nothing of this rewrite"


def test_compacting_a_graph_leaves_it_as_it_was() -> None:
    given = network()
    before = given.SerializeToString(deterministic=True)
    assert len(compact(given).SerializeToString()) < len(before)
    assert given.SerializeToString(deterministic=True) == before


def test_a_target_lowers_the_ir_version_of_a_copy() -> None:
    given, target = network(), find_target("x86-64-vnni")
    given.opset_import[0].version = target.opset
    assert for_target(given, target).ir_version == target.ir_version < 11
    assert given.ir_version == 11
