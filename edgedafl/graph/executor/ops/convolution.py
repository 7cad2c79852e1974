"""Convolutions and their padding rules."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from edgedafl.graph.executor.context import NodeContext, align, op, pads_to_torch

__all__ = ["convolve", "spatial_pads"]

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def spatial_pads(
    context: NodeContext,
    sizes: list[int],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
) -> tuple[list[int], list[int]]:
    """Pads before and after each spatial axis, from `pads` or `auto_pad`.

    Examples:
        >>> context = NodeContext("Conv", "c", 18, 1, {"auto_pad": "SAME_UPPER"})
        >>> spatial_pads(context, [8, 8], [3, 3], [2, 2], [1, 1])
        ([0, 0], [1, 1])
    """
    rank = len(kernel)
    mode = context.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        begin, end = [], []
        for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
            out = -(-size // stride)
            total = max((out - 1) * stride + (k - 1) * dilation + 1 - size, 0)
            small, large = total // 2, total - total // 2
            begin.append(small if mode == "SAME_UPPER" else large)
            end.append(large if mode == "SAME_UPPER" else small)
        return begin, end
    pads = [0] * (2 * rank) if mode == "VALID" else list(context.get("pads", [0] * (2 * rank)))
    return pads[:rank], pads[rank:]


def convolve(context: NodeContext, x: Any, weight: Any, bias: Any = None) -> Tensor:
    """Convolution of any rank with the node's strides, dilations, groups and padding.

    Examples:
        >>> import torch
        >>> context = NodeContext("Conv", "c", 18, 1, {"pads": [1, 1, 1, 1]})
        >>> convolve(context, torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3))[0, 0]
        tensor([[4., 6., 4.],
                [6., 9., 6.],
                [4., 6., 4.]])
    """
    x, weight, bias = align(x, weight, bias)
    rank = weight.ndim - 2
    strides = list(context.get("strides", [1] * rank))
    dilations = list(context.get("dilations", [1] * rank))
    kernel = list(weight.shape[2:])
    begin, end = spatial_pads(context, list(x.shape[2:]), kernel, strides, dilations)
    if begin != end or min(begin, default=0) < 0:
        x = F.pad(x, pads_to_torch(begin, end))
        begin = [0] * rank
    return _CONV[rank](x, weight, bias, strides, begin, dilations, context.get("group", 1))


@op("Conv")
def conv(context: NodeContext, x: Any, weight: Any, bias: Any = None) -> Tensor:
    return convolve(context, x, weight, bias)


@op("ConvTranspose")
def conv_transpose(context: NodeContext, x: Any, weight: Any, bias: Any = None) -> Tensor:
    """Computed unpadded, then cropped: covers every mix of pads, output_shape and auto_pad."""
    x, weight, bias = align(x, weight, bias)
    rank = weight.ndim - 2
    strides = list(context.get("strides", [1] * rank))
    dilations = list(context.get("dilations", [1] * rank))
    extra = list(context.get("output_padding", [0] * rank))
    kernel = weight.shape[2:]
    full = [(x.shape[2 + i] - 1) * strides[i] + extra[i] + (kernel[i] - 1) * dilations[i] + 1 for i in range(rank)]
    wanted = list(context.get("output_shape", []))[-rank:]
    # A wanted output may be larger than what the kernel reaches.
    full = [max(f, w) for f, w in zip(full, wanted, strict=True)] if wanted else full
    begin, end = _transpose_crop(context, list(x.shape[2:]), full, strides)
    y = _CONV_TRANSPOSE[rank](x, weight, bias, strides, 0, 0, context.get("group", 1), dilations)
    missing = [size - y.shape[2 + i] for i, size in enumerate(full)]
    if any(missing):
        grown = F.pad(y, pads_to_torch([0] * rank, missing))
        if bias is not None:
            # The rows that output_padding adds hold the bias, not zero.
            ones = F.pad(y.new_zeros(y.shape), pads_to_torch([0] * rank, missing), value=1.0)
            grown = grown + ones * bias.reshape(1, -1, *[1] * rank)
        y = grown
    crop = [slice(begin[i], y.shape[2 + i] - end[i]) for i in range(rank)]
    return y[(slice(None), slice(None), *crop)]


def _transpose_crop(
    context: NodeContext, sizes: list[int], full: list[int], strides: list[int]
) -> tuple[list[int], list[int]]:
    rank = len(sizes)
    mode = context.get("auto_pad", "NOTSET")
    shape = context.get("output_shape")
    if shape is None and not mode.startswith("SAME"):
        return spatial_pads(context, sizes, [1] * rank, strides, [1] * rank)
    if shape is None:
        shape = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    totals = [max(f - s, 0) for f, s in zip(full, list(shape)[-rank:], strict=True)]
    small = [total // 2 for total in totals]
    large = [total - half for total, half in zip(totals, small, strict=True)]
    return (small, large) if mode == "SAME_UPPER" else (large, small)
