"""Quantized operators with integers carried as floats and straight-through rounding.

The forward value is the integer arithmetic of the specification to within one quantum; the
gradient is that of the float network, so a quantized teacher can still guide a generator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from edgedafl.graph.executor.context import (
    MICROSOFT,
    NodeContext,
    op,
    register,
    tensor_like,
)
from edgedafl.graph.executor.ops.convolution import convolve
from edgedafl.graph.executor.ops.pooling import average_pool
from edgedafl.graph.executor.rounding import straight_through

__all__: list[str] = []

_Range = tuple[int, int]
_RANGES: dict[str, _Range] = {
    "uint8": (0, 255),
    "int8": (-128, 127),
    "uint16": (0, 65535),
    "int16": (-32768, 32767),
}
# Types that torch knows as well; the narrower ones of ONNX come as floats.
_KNOWN = {"float32", "float64", "uint8", "int8", "int32", "int64"}


def _as_float(value: Any, reference: Tensor | None = None) -> Tensor:
    if not isinstance(value, Tensor):
        array = np.asarray(value)
        array = array if array.dtype.name in _KNOWN else array.astype(np.float32)
        value = torch.from_numpy(array) if reference is None else tensor_like(array, reference)
    return value if value.is_floating_point() else value.float()


def _per_axis(value: Any, x: Tensor, axis: int) -> Tensor:
    """A scalar, or a vector laid along `axis` so that it broadcasts over `x`."""
    value = _as_float(value, x).to(x.dtype)
    if value.ndim == x.ndim and value.ndim > 1:
        return value
    if value.numel() == 1:
        return value.reshape(())
    shape = [1] * x.ndim
    shape[axis] = -1
    return value.reshape(shape)


def _spread(context: NodeContext, value: Any, like: Any) -> Any:
    """Scales or zero points of blocks, one per element."""
    if value is None:
        return None
    axis, block = context.get("axis", 1) % like.ndim, context.get("block_size")
    wide = _as_float(value, like if isinstance(like, Tensor) else None).repeat_interleave(block, axis)
    return wide.narrow(axis, 0, like.shape[axis])


def _range_of(context: NodeContext, zero_point: Any) -> _Range:
    if isinstance(zero_point, np.ndarray):
        return _RANGES.get(zero_point.dtype.name, (0, 255))
    kind = context.get("output_dtype")
    return _RANGES.get(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).name, (0, 255)) if (kind) else (0, 255)


def _quantize(x: Tensor, scale: Any, zero_point: Any, axis: int, limits: _Range) -> Tensor:
    steps = straight_through(torch.round, x / _per_axis(scale, x, axis))
    shift = 0.0 if zero_point is None else _per_axis(zero_point, x, axis)
    return torch.clamp(steps + shift, *limits)


def _dequantize(q: Any, scale: Any, zero_point: Any, axis: int, reference: Tensor | None = None) -> Tensor:
    if reference is None and isinstance(scale, Tensor):
        reference = scale
    q = _as_float(q, reference)
    shift = 0.0 if zero_point is None else _per_axis(zero_point, q, axis)
    return (q - shift) * _per_axis(scale, q, axis)


def _axis(context: NodeContext, rank: int) -> int:
    return int(context.get("axis", 1)) % rank if rank > 1 else 0


def quantize_linear(context: NodeContext, x: Any, scale: Any, zero_point: Any = None) -> Tensor:
    x = _as_float(x)
    limits = _range_of(context, zero_point)
    if context.get("block_size", 0):
        scale, zero_point = (_spread(context, v, x) for v in (scale, zero_point))
    return _quantize(x, scale, zero_point, _axis(context, x.ndim), limits)


def dequantize_linear(context: NodeContext, q: Any, scale: Any, zero_point: Any = None) -> Tensor:
    if context.get("block_size", 0):
        scale, zero_point = (_spread(context, v, q) for v in (scale, zero_point))
    return _dequantize(q, scale, zero_point, _axis(context, q.ndim))


for _domain in ("", MICROSOFT):
    register({"QuantizeLinear": quantize_linear, "DequantizeLinear": dequantize_linear}, domain=_domain)


@op("DynamicQuantizeLinear")
def dynamic_quantize_linear(context: NodeContext, x: Tensor) -> list[Tensor]:
    high = torch.clamp(x.detach().max(), min=0)
    low = torch.clamp(x.detach().min(), max=0)
    scale = (high - low) / 255
    zero = torch.clamp(torch.round(-low / scale), 0, 255)
    return [torch.clamp(straight_through(torch.round, x / scale) + zero, 0, 255), scale, zero]


@op("ConvInteger")
def conv_integer(context: NodeContext, x: Any, weight: Any, x_zero: Any = None, weight_zero: Any = None) -> Tensor:
    x = _as_float(x)
    weight = _as_float(weight, x)
    x = x if x_zero is None else x - _as_float(x_zero, x)
    weight = weight if weight_zero is None else weight - _per_axis(weight_zero, weight, 0)
    return convolve(context, x, weight)


@op("MatMulInteger")
def matmul_integer(context: NodeContext, a: Any, b: Any, a_zero: Any = None, b_zero: Any = None) -> Tensor:
    a = _as_float(a)
    b = _as_float(b, a)
    a = a if a_zero is None else a - _per_axis(a_zero, a, -2)
    b = b if b_zero is None else b - _per_axis(b_zero, b, -1)
    return a @ b


def _scaled_bias(bias: Any, x_scale: Any, weight_scale: Any, reference: Tensor) -> Tensor | None:
    """An int32 bias counts in units of input scale times weight scale."""
    if bias is None:
        return None
    unit = (_as_float(x_scale, reference) * _as_float(weight_scale, reference)).reshape(-1)
    return _as_float(bias, reference) * unit


@op("QLinearConv")
def qlinear_conv(
    context: NodeContext,
    x: Any, x_scale: Any, x_zero: Any,
    weight: Any, weight_scale: Any, weight_zero: Any,
    y_scale: Any, y_zero: Any,
    bias: Any = None,
) -> Tensor:  # fmt: skip
    data = _dequantize(x, x_scale, x_zero, 1)
    kernel = _dequantize(weight, weight_scale, weight_zero, 0, data)
    y = convolve(context, data, kernel, _scaled_bias(bias, x_scale, weight_scale, data))
    return _quantize(y, y_scale, y_zero, 1, _range_of(context, y_zero))


@op("QLinearMatMul")
def qlinear_matmul(
    context: NodeContext,
    a: Any, a_scale: Any, a_zero: Any,
    b: Any, b_scale: Any, b_zero: Any,
    y_scale: Any, y_zero: Any,
) -> Tensor:  # fmt: skip
    left = _dequantize(a, a_scale, a_zero, -2)
    y = left @ _dequantize(b, b_scale, b_zero, -1, left)
    return _quantize(y, y_scale, y_zero, -1, _range_of(context, y_zero))


@op("QGemm", domain=MICROSOFT)
def qgemm(
    context: NodeContext,
    a: Any, a_scale: Any, a_zero: Any,
    b: Any, b_scale: Any, b_zero: Any,
    bias: Any = None, y_scale: Any = None, y_zero: Any = None,
) -> Tensor:  # fmt: skip
    left = _dequantize(a, a_scale, a_zero, 1)
    right = _dequantize(b, b_scale, b_zero, 0 if context.get("transB", 0) else 1, left)
    left = left.mT if context.get("transA", 0) else left
    y = context.get("alpha", 1.0) * (left @ (right.mT if context.get("transB", 0) else right))
    offset = _scaled_bias(bias, a_scale, b_scale, y)
    y = y if offset is None else y + offset
    return y if y_scale is None else _quantize(y, y_scale, y_zero, 1, _range_of(context, y_zero))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def apply(
        context: NodeContext,
        a: Any, a_scale: Any, a_zero: Any,
        b: Any, b_scale: Any, b_zero: Any,
        y_scale: Any, y_zero: Any = None,
    ) -> Tensor:  # fmt: skip
        left = _dequantize(a, a_scale, a_zero, 1)
        y = function(left, _dequantize(b, b_scale, b_zero, 1, left))
        return _quantize(y, y_scale, y_zero, 1, _range_of(context, y_zero))

    return apply


def _unary(function: Callable[[NodeContext, Tensor], Tensor]) -> Callable[..., Tensor]:
    def apply(context: NodeContext, x: Any, x_scale: Any, x_zero: Any, y_scale: Any, y_zero: Any = None) -> Tensor:
        y = function(context, _dequantize(x, x_scale, x_zero, 1))
        return _quantize(y, y_scale, y_zero, 1, _range_of(context, y_zero))

    return apply


def _softmax(context: NodeContext, x: Tensor) -> Tensor:
    """`opset` tells which meaning of the axis; before 13 all axes behind it are one."""
    axis = context.get("axis", -1) % x.ndim
    if context.get("opset", 13) >= 13:
        return torch.softmax(x, axis)
    return torch.softmax(x.flatten(axis), -1).reshape(x.shape)


def _global_average(context: NodeContext, x: Tensor) -> Tensor:
    axes = (1, 2) if context.get("channels_last", 0) else tuple(range(2, x.ndim))
    return x.mean(axes, keepdim=True)


register(
    {
        "QLinearAdd": _binary(torch.add),
        "QLinearMul": _binary(torch.mul),
        "QLinearAveragePool": _unary(average_pool),
        "QLinearGlobalAveragePool": _unary(_global_average),
        "QLinearLeakyRelu": _unary(lambda c, x: F.leaky_relu(x, c.get("alpha", 0.01))),
        "QLinearSoftmax": _unary(_softmax),
        "QLinearSigmoid": _unary(lambda c, x: torch.sigmoid(x)),
    },
    domain=MICROSOFT,
)


@op("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(context: NodeContext, y_scale: Any, y_zero: Any, *parts: Any) -> Tensor:
    triples = [parts[i : i + 3] for i in range(0, len(parts), 3)]
    y = torch.cat([_dequantize(q, scale, zero, 1) for q, scale, zero in triples], context.get("axis", 1))
    return _quantize(y, y_scale, y_zero, 1, _range_of(context, y_zero))
