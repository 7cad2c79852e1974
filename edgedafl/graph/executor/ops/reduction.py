"""Reductions over axes, arg-max and similar."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from edgedafl.graph.executor.context import NodeContext, integers, op, register

__all__: list[str] = []

_Reduce = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.mean(axes, keep) if x.is_floating_point() else x.double().mean(axes, keep).to(x.dtype)


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _extreme(x: Tensor, axes: tuple[int, ...], keep: bool, empty: float) -> Tensor:
    """The largest or smallest; `empty` (-inf or inf) where there is nothing to choose from."""
    if x.numel():
        return x.amax(axes, keep) if empty < 0 else x.amin(axes, keep)
    sides = [1 if i in {a % x.ndim for a in axes} else s for i, s in enumerate(x.shape)]
    found = x.new_full(sides, empty)
    return found if keep else found.squeeze(axes)


_REDUCTIONS: dict[str, _Reduce] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceMax": lambda x, axes, keep: _extreme(x, axes, keep, -math.inf),
    "ReduceMean": _mean,
    "ReduceMin": lambda x, axes, keep: _extreme(x, axes, keep, math.inf),
    "ReduceProd": _product,
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keep),
}


def _reducer(function: _Reduce) -> Callable[..., Tensor]:
    """Axes are an attribute in old opsets and an input in new ones."""

    def reduce(context: NodeContext, x: Tensor, axes: Any = None) -> Tensor:
        chosen = context.get("axes") if axes is None else integers(axes)
        if not chosen:
            if context.get("noop_with_empty_axes", 0):
                return x
            chosen = range(x.ndim)
        return function(x, tuple(chosen), bool(context.get("keepdims", 1)))

    return reduce


register({name: _reducer(function) for name, function in _REDUCTIONS.items()})


def _arg(function: Callable[..., Tensor]) -> Callable[[NodeContext, Tensor], Tensor]:
    def choose(context: NodeContext, x: Tensor) -> Tensor:
        axis, keep = context.get("axis", 0), bool(context.get("keepdims", 1))
        if context.get("select_last_index", 0):
            return x.shape[axis] - 1 - function(x.flip(axis), dim=axis, keepdim=keep)
        return function(x, dim=axis, keepdim=keep)

    return choose


register({"ArgMax": _arg(torch.argmax), "ArgMin": _arg(torch.argmin)})


@op("TopK")
def top_k(context: NodeContext, x: Tensor, k: Any = None) -> list[Tensor]:
    count = context.get("k") if k is None else integers(k)[0]
    largest, ordered = bool(context.get("largest", 1)), bool(context.get("sorted", 1))
    values, indices = torch.topk(x, count, context.get("axis", -1), largest, ordered)
    return [values, indices]


@op("CumSum")
def cumulative_sum(context: NodeContext, x: Tensor, axis: Any) -> Tensor:
    dim = integers(axis)[0]
    x = x.flip(dim) if context.get("reverse", 0) else x
    y = x.cumsum(dim)
    y = y - x if context.get("exclusive", 0) else y
    return y.flip(dim) if context.get("reverse", 0) else y
