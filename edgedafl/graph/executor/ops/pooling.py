"""Pooling, with ONNX's rules for ceil_mode and asymmetric pads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgedafl.graph.executor.context import NodeContext, op, pads_to_torch, unsupported
from edgedafl.graph.executor.ops.convolution import spatial_pads

__all__ = ["average_pool"]

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class _Window:
    """Geometry of one pooling call; `extra` is what ceil_mode reads past the end pad."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begin: list[int]
    end: list[int]
    extra: list[int]

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def tail(self) -> list[int]:
        return [e + x for e, x in zip(self.end, self.extra, strict=True)]

    @property
    def torch_can_pad(self) -> bool:
        """Torch pads symmetrically and by at most half a kernel."""
        halves = all(2 * b <= k for b, k in zip(self.begin, self.kernel, strict=True))
        return self.begin == self.tail and halves


def _window(context: NodeContext, x: Tensor) -> _Window:
    kernel = list(context.get("kernel_shape"))
    rank = len(kernel)
    strides = list(context.get("strides", [1] * rank))
    dilations = list(context.get("dilations", [1] * rank))
    sizes = list(x.shape[2:])
    begin, end = spatial_pads(context, sizes, kernel, strides, dilations)
    extra = []
    for i in range(rank):
        reach = (kernel[i] - 1) * dilations[i] + 1
        span = sizes[i] + begin[i] + end[i] - reach
        count = span // strides[i] + 1
        if context.get("ceil_mode", 0):
            count = -(-span // strides[i]) + 1
            # A last window that starts in the end pad is dropped.
            if (count - 1) * strides[i] >= sizes[i] + begin[i]:
                count -= 1
        extra.append(max((count - 1) * strides[i] + reach - (sizes[i] + begin[i] + end[i]), 0))
    return _Window(kernel, strides, dilations, begin, end, extra)


@op("MaxPool")
def max_pool(context: NodeContext, x: Tensor) -> Tensor | list[Tensor]:
    w = _window(context, x)
    if context.outputs > 1:
        return _with_indices(context, x, w)
    if w.torch_can_pad:
        return _MAX[w.rank](x, w.kernel, w.strides, w.begin, w.dilations)
    padded = F.pad(x, pads_to_torch(w.begin, w.tail), value=-math.inf)
    return _MAX[w.rank](padded, w.kernel, w.strides, 0, w.dilations)


def _with_indices(context: NodeContext, x: Tensor, w: _Window) -> list[Tensor]:
    """Values, and their positions in the flattened input as ONNX counts them."""
    if w.rank != 2 or context.get("storage_order", 0):
        raise unsupported(context, "an indices output of this form")
    padded = F.pad(x, pads_to_torch(w.begin, w.tail), value=-math.inf)
    values, flat = F.max_pool2d(padded, w.kernel, w.strides, 0, w.dilations, return_indices=True)
    rows, columns = flat // padded.shape[3] - w.begin[0], flat % padded.shape[3] - w.begin[1]
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], 1, 1)
    return [values, (planes * x.shape[2] + rows) * x.shape[3] + columns]


@op("AveragePool")
def average_pool(context: NodeContext, x: Tensor) -> Tensor:
    """Sum over the window divided by the count of cells that take part.

    Examples:
        >>> import torch
        >>> context = NodeContext("AveragePool", "p", 18, 1, {"kernel_shape": [2, 2]})
        >>> average_pool(context, torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]]))
        tensor([[[[3.]]]])
    """
    w = _window(context, x)
    count_pads = bool(context.get("count_include_pad", 0))
    dense = all(d == 1 for d in w.dilations)
    if dense and w.torch_can_pad and not any(w.extra):
        return _AVERAGE[w.rank](x, w.kernel, w.strides, w.begin, False, count_pads)
    ones = x.new_ones(1, 1, *x.shape[2:])
    if count_pads:
        ones = F.pad(ones, pads_to_torch(w.begin, w.end), value=1.0)
        ones = F.pad(ones, pads_to_torch([0] * w.rank, w.extra))
    else:
        ones = F.pad(ones, pads_to_torch(w.begin, w.tail))
    total = _window_sum(F.pad(x, pads_to_torch(w.begin, w.tail)), w)
    return total / _window_sum(ones, w)


def _window_sum(x: Tensor, w: _Window) -> Tensor:
    channels = x.shape[1]
    kernel = x.new_ones(channels, 1, *w.kernel)
    return _CONV[w.rank](x, kernel, None, w.strides, 0, w.dilations, channels)


@op("GlobalAveragePool")
def global_average_pool(context: NodeContext, x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


@op("GlobalMaxPool")
def global_max_pool(context: NodeContext, x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


@op("LpPool")
def lp_pool(context: NodeContext, x: Tensor) -> Tensor:
    w = _window(context, x)
    p = context.get("p", 2)
    powered = F.pad(x.abs() ** p, pads_to_torch(w.begin, w.tail))
    return _window_sum(powered, w) ** (1 / p)
