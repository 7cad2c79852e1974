"""Biases that make up for what rounding does to a layer's mean.

After the bias correction of data-free quantization (Nagel et al. 2019, arXiv 1906.04721, section 4.2), with
two changes for synthetic images. The mean error of a channel is taken image by image, and the median image
counts: some images run far beyond the ranges, and the mean over all would follow those. And only a part of it
is made up for, since real images share only a part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from edgedafl.graph.edit import copy_of
from edgedafl.graph.executor import OnnxModule, Walk
from edgedafl.graph.pruning import Layer, layer_of
from edgedafl.quantize.ranges import Range

__all__ = ["correct_biases"]

_SHARE = 0.5
"""Of the error that is made up for. All of it cost a MobileNetV2 a point that half did not (docs/benchmarks.md)."""
_LEVELS = 255
_PIECE = 8  # images


@torch.no_grad()
def correct_biases(
    model: onnx.ModelProto,
    rounded: onnx.ModelProto,
    ranges: Mapping[str, Range],
    operators: Set[str],
    images: np.ndarray,
    *,
    symmetric: bool = False,
) -> onnx.ModelProto:
    """A graph with rounded weights whose layers have the means of the float graph's.

    Both graphs are run side by side, node by node; of the rounded one, values are rounded where integers will be.

    Args:
        model: Float32 graph at batch 1 whose reshapes take any batch.
        rounded: The same nodes with rounded weights.
        ranges: Of every activation.
        operators: Types of the nodes whose inputs will be integers.
        images: float32 (N,C,H,W) in model space; what one layer makes of all of them is in memory.
        symmetric: Whether zero lies in the middle of the integers.

    Returns:
        A copy of `rounded` with other biases.
    """
    whole, mine = OnnxModule(model), OnnxModule(rounded)
    feeds = {model.graph.input[0].name: torch.from_numpy(images)}
    done: set[str] = set()
    for exact, coarse in zip(whole.walk(feeds), mine.walk(feeds), strict=True):
        if coarse.node.op_type in operators:
            _round_inputs(coarse, ranges, done, symmetric=symmetric)
        layer = layer_of(coarse.node, mine)
        exact.run()
        coarse.run()
        if layer is not None and layer.bias is not None:
            _make_up(layer, mine, exact, coarse)
    return _with_biases(rounded, mine)


def _round_inputs(walk: Walk, ranges: Mapping[str, Range], done: set[str], *, symmetric: bool) -> None:
    """Round what a node reads, each value once."""
    for name in walk.node.input:
        value = walk.values.get(name)
        if name in done or name not in ranges or not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        walk.values[name] = _on_grid(value, ranges[name], symmetric=symmetric)
        done.add(name)


def _on_grid(value: Tensor, found: Range, *, symmetric: bool) -> Tensor:
    """Values on the integers of a range, and clipped to it."""
    low, high = min(found.low, 0.0), max(found.high, 0.0)
    if symmetric:
        high = max(high, -low)
        low = -high
    if high <= low:
        return value
    step = (high - low) / _LEVELS
    zero = round(-low / step)
    return (value / step).round_().add_(zero).clamp_(0, _LEVELS).sub_(zero).mul_(step)


def _make_up(layer: Layer, module: OnnxModule, exact: Walk, coarse: Walk) -> None:
    """Move a layer's bias, and what it has made with the old one, towards the float layer's mean."""
    name = coarse.node.output[0]
    wanted, made = exact.values[name], coarse.values[name]
    axis = layer.axis % made.ndim
    inner = [i for i in range(1, made.ndim) if i != axis]
    # In pieces: both networks' values of all images fill the memory already.
    missing = (w - m for w, m in zip(wanted.split(_PIECE), made.split(_PIECE), strict=True))
    each = torch.cat([m.mean(inner) if inner else m for m in missing])  # (N, channels)
    move = _SHARE * each.median(0).values
    assert layer.bias is not None
    bias = module.initializer(layer.bias)
    bias.data.add_(move.reshape(bias.shape))
    made.add_(move.reshape([-1 if i == axis else 1 for i in range(made.ndim)]))


def _with_biases(rounded: onnx.ModelProto, module: OnnxModule) -> onnx.ModelProto:
    changed = copy_of(rounded)
    biases = {node.input[2] for node in changed.graph.node if node.op_type in ("Conv", "Gemm") and len(node.input) > 2}
    for tensor in changed.graph.initializer:
        if tensor.name in biases and module.holds(tensor.name):
            value = module.initializer(tensor.name).numpy().reshape(tuple(tensor.dims))
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, np.float32, order="C"), tensor.name))
    return changed
