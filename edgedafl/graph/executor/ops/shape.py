"""Operators that move, join or retype values without computing on them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from edgedafl.graph.executor.context import (
    NodeContext,
    align,
    host,
    integers,
    op,
    pads_to_torch,
)
from edgedafl.graph.executor.rounding import straight_through

__all__: list[str] = []

_FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.BFLOAT16,
}


@op("Shape")
def shape(context: NodeContext, x: Any) -> np.ndarray:
    sizes = list(x.shape)
    return np.array(sizes[context.get("start", 0) : context.get("end", len(sizes))], np.int64)


@op("Size")
def size(context: NodeContext, x: Any) -> np.ndarray:
    return np.array(math.prod(x.shape), np.int64)


@op("Reshape")
def reshape(context: NodeContext, x: Tensor, target: Any = None) -> Tensor:
    sizes = list(context.get("shape")) if target is None else integers(target)
    if not context.get("allowzero", 0):
        sizes = [x.shape[i] if s == 0 else s for i, s in enumerate(sizes)]
    return x.reshape(sizes)


@op("Flatten")
def flatten(context: NodeContext, x: Tensor) -> Tensor:
    axis = context.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@op("Transpose")
def transpose(context: NodeContext, x: Tensor) -> Tensor:
    return x.permute(context.get("perm", list(range(x.ndim))[::-1]))


@op("Squeeze")
def squeeze(context: NodeContext, x: Tensor, axes: Any = None) -> Tensor:
    chosen = context.get("axes") if axes is None else integers(axes)
    if chosen is None:
        chosen = [i for i, s in enumerate(x.shape) if s == 1]
    return x.squeeze(tuple(chosen)) if chosen else x


@op("Unsqueeze")
def unsqueeze(context: NodeContext, x: Tensor, axes: Any = None) -> Tensor:
    chosen = context.get("axes") if axes is None else integers(axes)
    rank = x.ndim + len(chosen)
    for axis in sorted(a % rank for a in chosen):
        x = x.unsqueeze(axis)
    return x


@op("Concat")
def concat(context: NodeContext, *values: Any) -> Tensor:
    return torch.cat(align(*values), context.get("axis", 1))


@op("Split")
def split(context: NodeContext, x: Tensor, sizes: Any = None) -> list[Tensor]:
    axis = context.get("axis", 0)
    parts = context.get("split") if sizes is None else integers(sizes)
    if parts is None:
        count, length = context.get("num_outputs", context.outputs), x.shape[axis]
        each = -(-length // count)
        parts = [min(each, max(length - each * i, 0)) for i in range(count)]
    return list(torch.split(x, list(parts), axis))


@op("Expand")
def expand(context: NodeContext, x: Tensor, target: Any) -> Tensor:
    return x.expand(torch.broadcast_shapes(tuple(x.shape), tuple(integers(target))))


@op("Tile")
def tile(context: NodeContext, x: Tensor, repeats: Any) -> Tensor:
    return x.repeat(integers(repeats))


@op("Pad")
def pad(context: NodeContext, x: Tensor, pads: Any = None, value: Any = None, axes: Any = None) -> Tensor:
    """All modes, any rank; negative pads crop. `pads` was called `paddings` in opset 1."""
    amounts = context.get("pads") or context.get("paddings") if pads is None else integers(pads)
    chosen = list(range(x.ndim)) if axes is None else [a % x.ndim for a in integers(axes)]
    fill = context.get("value", 0.0) if value is None else float(host(value).reshape(()))
    low, high = [0] * x.ndim, [0] * x.ndim
    for i, axis in enumerate(chosen):
        low[axis], high[axis] = amounts[i], amounts[len(chosen) + i]
    mode = context.get("mode", "constant")
    if mode == "constant":
        return F.pad(x, pads_to_torch(low, high), value=fill)
    for axis in range(x.ndim):
        if low[axis] or high[axis]:
            x = x.index_select(axis, _reflected(mode, x.shape[axis], low[axis], high[axis], x))
    return x


def _reflected(mode: str, length: int, low: int, high: int, x: Tensor) -> Tensor:
    index = torch.arange(-low, length + high, device=x.device)
    if mode == "edge":
        return index.clamp(0, length - 1)
    if mode == "wrap":
        return index % length
    period = max(2 * (length - 1), 1)
    index = index % period
    return torch.where(index >= length, period - index, index)


@op("DepthToSpace")
def depth_to_space(context: NodeContext, x: Tensor) -> Tensor:
    block = context.get("blocksize")
    if context.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // block**2, h * block, w * block)


@op("SpaceToDepth")
def space_to_depth(context: NodeContext, x: Tensor) -> Tensor:
    block = context.get("blocksize")
    if context.get("mode", "DCR") == "CRD":
        return F.pixel_unshuffle(x, block)
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * block**2, h // block, w // block)


@op("Cast")
def cast(context: NodeContext, x: Any) -> Tensor:
    """Float types stay in the working type; a cast to integers keeps a float carrier.

    Images cast from uint8 and rounding casts therefore still pass a gradient.
    """
    target = context.get("to")
    (x,) = align(x)
    if target in _FLOATS:
        return x if x.is_floating_point() else x.float()
    if target == onnx.TensorProto.BOOL:
        return x != 0
    if x.is_floating_point():
        return straight_through(torch.trunc, x)
    return x.to(torch.from_numpy(np.zeros(1, onnx.helper.tensor_dtype_to_np_dtype(target))).dtype)


@op("CastLike")
def cast_like(context: NodeContext, x: Any, like: Any) -> Tensor | np.ndarray:
    if not isinstance(x, Tensor):
        # A constant stays on the host: alone it does not tell which device it is wanted on.
        target = np.float32 if like.is_floating_point() else torch.zeros(0, dtype=like.dtype).numpy().dtype
        return np.asarray(x).astype(target)
    like = align(like)[0]
    return x if x.is_floating_point() == like.is_floating_point() else x.to(like.dtype)


@op("ConstantOfShape")
def constant_of_shape(context: NodeContext, sizes: Any) -> np.ndarray:
    value = context.get("value")
    filler = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    return np.full(integers(sizes), filler.reshape(-1)[0], filler.dtype)


@op("Range")
def arange(context: NodeContext, start: Any, limit: Any, delta: Any) -> np.ndarray:
    first, last, step = (host(v).reshape(()) for v in (start, limit, delta))
    count = max(0, int(np.ceil((last - first) / step)))
    return np.asarray(first + np.arange(count) * step, first.dtype)
