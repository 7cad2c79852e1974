"""Activations as integers will hold them, in floats."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from edgedafl.graph.executor import Walk
from edgedafl.quantize.ranges import Range

__all__ = ["round_inputs"]

_LEVELS = 255


def round_inputs(walk: Walk, ranges: Mapping[str, Range], done: set[str], *, symmetric: bool) -> None:
    """Round what a node reads, each value once.

    Args:
        walk: Before the node.
        ranges: Of the values that will be integers.
        done: Names of the values that are rounded already; this node's are added.
        symmetric: Whether zero lies in the middle of the integers.

    Examples:
        >>> import onnx
        >>> import torch
        >>> from edgedafl.graph.executor import OnnxModule
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[n,2] x) => (float[n,2] y) { y = Relu(x) }'
        >>> network = OnnxModule(onnx.parser.parse_model(text))
        >>> for walk in network.walk({"x": torch.tensor([[0.1, 0.999]])}):
        ...     round_inputs(walk, {"x": Range(-1.0, 1.0)}, set(), symmetric=False)
        ...     print(walk.values["x"])
        tensor([[0.1020, 0.9961]])
    """
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
