"""Resize and Upsample as one small matrix per axis.

Interpolation is separable and linear in the image, so along each axis it is a product with a
weight matrix (out, in). This is exact for every coordinate mode of the specification, works for
any rank, and its gradient is the transposed product.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgedafl.graph.executor.context import NodeContext, host, integers, op, unsupported

__all__ = ["axis_weights"]

_NEAREST: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda v: np.ceil(v - 0.5),
    "round_prefer_ceil": lambda v: np.floor(v + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@op("Resize")
def resize(context: NodeContext, x: Tensor, roi: Any = None, scales: Any = None, sizes: Any = None) -> Tensor:
    """Opset 10 has no roi input: its second input is the scales."""
    if context.opset < 11:
        scales, sizes = roi, None
    axes = [a % x.ndim for a in context.get("axes", range(x.ndim))]
    lengths = [x.shape[a] for a in axes]
    if sizes is not None and np.size(sizes):
        targets, factors = _from_sizes(context, lengths, integers(sizes))
    else:
        factors = [float(v) for v in host(scales).reshape(-1)]
        targets = [math.floor(f * n) for f, n in zip(factors, lengths, strict=True)]
    for axis, factor, target in zip(axes, factors, targets, strict=True):
        if factor != 1 or target != x.shape[axis]:
            weights = _cached_weights(context, x, x.shape[axis], target, factor)
            x = torch.matmul(x.movedim(axis, -1), weights.mT).movedim(-1, axis)
    return x


@op("Upsample")
def upsample(context: NodeContext, x: Tensor, scales: Any = None) -> Tensor:
    """The forerunner of Resize: asymmetric coordinates, floor."""
    mode = "nearest" if context.get("mode", "nearest") == "nearest" else "linear"
    factors = np.asarray(context.get("scales") if scales is None else host(scales))
    attributes = {
        "mode": mode,
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    modern = dataclasses.replace(context, opset=11, attributes=attributes)
    return resize(modern, x, None, factors)


def _from_sizes(context: NodeContext, lengths: list[int], targets: list[int]) -> tuple[list[int], list[float]]:
    factors = [t / n for t, n in zip(targets, lengths, strict=True)]
    policy = context.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return targets, factors
    factor = min(factors) if policy == "not_larger" else max(factors)
    return [math.floor(factor * n + 0.5) for n in lengths], [factor] * len(lengths)


def _cached_weights(context: NodeContext, x: Tensor, length: int, target: int, factor: float) -> Tensor:
    key = (length, target, factor, x.device, x.dtype)
    if key not in context.cache:
        weights = axis_weights(context, length, target, factor)
        dtype = x.dtype if x.is_floating_point() else torch.float32
        context.cache[key] = torch.as_tensor(weights, dtype=dtype, device=x.device)
    return context.cache[key]


def axis_weights(context: NodeContext, length: int, target: int, factor: float) -> np.ndarray:
    """The (target, length) interpolation matrix of one axis.

    Examples:
        >>> context = NodeContext("Resize", "r", 18, 1, {"mode": "nearest"})
        >>> axis_weights(context, 2, 4, 2.0).argmax(1)
        array([0, 0, 1, 1])
    """
    old = context.opset < 11
    mode = context.get("mode", "nearest")
    source = _source_positions(context, length, target, factor, old, mode)
    weights = np.zeros((target, length))
    if mode == "nearest":
        rounding = context.get("nearest_mode", "floor" if old else "round_prefer_floor")
        column = np.clip(_NEAREST[rounding](source), 0, length - 1).astype(int)
        weights[np.arange(target), column] = 1
        return weights
    shrink = min(factor, 1.0) if context.get("antialias", 0) else 1.0
    reach = (1 if mode == "linear" else 2) / shrink
    a = context.get("cubic_coeff_a", -0.75)
    for row, position in enumerate(source):
        columns = np.arange(math.floor(position - reach), math.floor(position + reach) + 2)
        shares = _kernel((columns - position) * shrink, mode, a)
        if context.get("exclude_outside", 0):
            shares = np.where((columns < 0) | (columns >= length), 0, shares)
        total = shares.sum()
        shares = shares / total if total else shares
        np.add.at(weights[row], np.clip(columns, 0, length - 1), shares)
    return weights


def _source_positions(
    context: NodeContext, length: int, target: int, factor: float, old: bool, mode: str
) -> np.ndarray:
    """Where each output cell lies on the input axis.

    Nearest mode works in float32 as the reference runtimes do: ties must fall the same way.
    """
    kind: Any = np.float32 if mode == "nearest" else np.float64
    out: Any = np.arange(target, dtype=kind)
    scale: Any = kind(factor)
    nominal = scale * length
    rule = context.get("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    if rule == "half_pixel" or (rule == "pytorch_half_pixel" and target > 1):
        return np.asarray((out + 0.5) / scale - 0.5)
    if rule == "asymmetric":
        return np.asarray(out / scale)
    if rule == "align_corners" and target > 1:
        # Over the whole number of output cells, as ONNX Runtime has it.
        return np.asarray(out * (length - 1) / (target - 1))
    if rule in ("align_corners", "pytorch_half_pixel"):
        return np.zeros(target)
    if rule == "half_pixel_symmetric":
        centre = length / 2 * (1 - target / nominal)
        return np.asarray(centre + (out + 0.5) / scale - 0.5)
    if rule == "tf_half_pixel_for_nn":
        return np.asarray((out + 0.5) / scale)
    raise unsupported(context, f"coordinate_transformation_mode={rule}")


def _kernel(distance: np.ndarray, mode: str, a: float) -> np.ndarray:
    t = np.abs(distance)
    if mode == "linear":
        return np.maximum(1 - t, 0)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))
