"""Slicing, gathering and scattering."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgedafl.graph.executor.context import (
    NodeContext,
    host,
    integers,
    op,
    tensor_like,
    unsupported,
)

__all__: list[str] = []


def _reference(*values: Any) -> Tensor:
    return next(v for v in values if isinstance(v, Tensor))


def _wrapped(indices: Tensor, length: int) -> Tensor:
    """Negative indices count from the end."""
    indices = indices.long()
    return torch.where(indices < 0, indices + length, indices)


@op("Slice")
def slice_(
    context: NodeContext,
    x: Tensor,
    starts: Any = None,
    ends: Any = None,
    axes: Any = None,
    steps: Any = None,
) -> Tensor:
    """Bounds are attributes before opset 10 and inputs after."""
    if starts is None:
        first, last = list(context.get("starts")), list(context.get("ends"))
        chosen = context.get("axes")
    else:
        first, last = integers(starts), integers(ends)
        chosen = None if axes is None else integers(axes)
    chosen = list(range(len(first))) if chosen is None else list(chosen)
    strides = [1] * len(first) if steps is None else integers(steps)
    for axis, start, end, step in zip(chosen, first, last, strides, strict=True):
        x = _slice_axis(x, axis % x.ndim, start, end, step)
    return x


def _slice_axis(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    length = x.shape[axis]
    if step > 0:
        start, end, _ = slice(start, end, step).indices(length)
        window = [slice(None)] * x.ndim
        window[axis] = slice(start, max(end, start), step)
        return x[tuple(window)]
    rows = range(length)[slice(start, None if end < -length else end, step)]
    return x.index_select(axis, torch.arange(rows.start, rows.stop, rows.step, device=x.device))


@op("Gather")
def gather(context: NodeContext, x: Any, indices: Any) -> Tensor:
    reference = _reference(x, indices)
    x = tensor_like(x, reference)
    axis = context.get("axis", 0) % x.ndim
    if not isinstance(indices, Tensor) and host(indices).ndim == 0:
        return x.select(axis, int(indices))
    index = _wrapped(tensor_like(indices, x), x.shape[axis])
    rows = x.index_select(axis, index.reshape(-1))
    return rows.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


@op("GatherElements")
def gather_elements(context: NodeContext, x: Any, indices: Any) -> Tensor:
    reference = _reference(x, indices)
    x, axis = tensor_like(x, reference), context.get("axis", 0)
    return torch.gather(x, axis, _wrapped(tensor_like(indices, x), x.shape[axis]))


@op("GatherND")
def gather_nd(context: NodeContext, x: Any, indices: Any) -> Tensor:
    if context.get("batch_dims", 0):
        raise unsupported(context, "batch_dims > 0")
    reference = _reference(x, indices)
    x = tensor_like(x, reference)
    index = tensor_like(indices, x).long()
    return x[tuple(index[..., k] for k in range(index.shape[-1]))]


@op("ScatterND")
def scatter_nd(context: NodeContext, x: Any, indices: Any, updates: Any) -> Tensor:
    reduction = context.get("reduction", "none")
    reference = _reference(x, updates, indices)
    x, updates = tensor_like(x, reference), tensor_like(updates, reference)
    index = tensor_like(indices, x).long()
    places = tuple(_wrapped(index[..., k], x.shape[k]) for k in range(index.shape[-1]))
    if reduction in ("none", "add"):
        return x.clone().index_put(places, updates, accumulate=reduction == "add")
    # Whole slices are written: one flat position for every element of them.
    rows = torch.arange(x.numel(), device=x.device).reshape(x.shape)[places]
    return _reduced(reduction, x.reshape(-1), rows.reshape(-1), updates.reshape(-1)).reshape(x.shape)


def _reduced(reduction: str, flat: Tensor, rows: Tensor, updates: Tensor) -> Tensor:
    kind = {"mul": "prod", "max": "amax", "min": "amin"}[reduction]
    return flat.scatter_reduce(0, rows, updates, kind)


@op("OneHot")
def one_hot(context: NodeContext, indices: Tensor, depth: Any, values: Any) -> Tensor:
    """Indices out of range give a row of `off`."""
    count = integers(depth)[0]
    reference = _reference(indices, values, depth)
    off, on = (float(v) for v in host(values).reshape(-1))
    index = _wrapped(tensor_like(indices, reference), count).unsqueeze(-1)
    marks = (index == torch.arange(count, device=index.device)).movedim(-1, context.get("axis", -1))
    return marks.float() * (on - off) + off


@op("Trilu")
def triangle(context: NodeContext, x: Tensor, k: Any = None) -> Tensor:
    diagonal = 0 if k is None else integers(k)[0]
    return torch.triu(x, diagonal) if context.get("upper", 1) else torch.tril(x, diagonal)
