"""Elementwise operators: arithmetic, comparison, activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edgedafl.graph.executor.context import (
    NodeContext,
    align,
    host,
    op,
    register,
    tensor_like,
)

__all__: list[str] = []


def _unary(function: Callable[..., Tensor]) -> Callable[[NodeContext, Tensor], Tensor]:
    return lambda context, x: function(x)


def _binary(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda context, a, b: function(*align(a, b))


def _variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def fold(context: NodeContext, *values: Any) -> Tensor:
        first, *rest = align(*values)
        for value in rest:
            first = function(first, value)
        return first

    return fold


register(
    {
        name: _unary(cast("Callable[..., Tensor]", function))
        for name, function in {
            "Abs": torch.abs,
            "Acos": torch.acos,
            "Asin": torch.asin,
            "Atan": torch.atan,
            "Ceil": torch.ceil,
            "Cos": torch.cos,
            "Cosh": torch.cosh,
            "Erf": torch.erf,
            "Exp": torch.exp,
            "Floor": torch.floor,
            "HardSwish": F.hardswish,
            "Identity": lambda x: x,
            "IsNaN": torch.isnan,
            "Log": torch.log,
            "Mish": F.mish,
            "Neg": torch.neg,
            "Not": torch.logical_not,
            "Reciprocal": torch.reciprocal,
            "Relu": torch.relu,
            "Round": torch.round,
            "Sigmoid": torch.sigmoid,
            "Sign": torch.sign,
            "Sin": torch.sin,
            "Sinh": torch.sinh,
            "Softplus": F.softplus,
            "Softsign": F.softsign,
            "Sqrt": torch.sqrt,
            "Tan": torch.tan,
            "Tanh": torch.tanh,
        }.items()
    }
)
register(
    {
        name: _binary(cast("Callable[..., Tensor]", function))
        for name, function in {
            "Add": torch.add,
            "And": torch.logical_and,
            "Equal": torch.eq,
            "Greater": torch.gt,
            "GreaterOrEqual": torch.ge,
            "Less": torch.lt,
            "LessOrEqual": torch.le,
            "Mul": torch.mul,
            "Or": torch.logical_or,
            "Sub": torch.sub,
            "Xor": torch.logical_xor,
        }.items()
    }
)
register({"Max": _variadic(torch.maximum), "Min": _variadic(torch.minimum), "Sum": _variadic(torch.add)})


@op("Mean")
def mean(context: NodeContext, *values: Any) -> Tensor:
    total = _variadic(torch.add)(context, *values)
    return total / len(values)


@op("Div")
def div(context: NodeContext, a: Any, b: Any) -> Tensor:
    """Division; integers truncate toward zero as ONNX asks."""
    a, b = align(a, b)
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@op("Mod")
def mod(context: NodeContext, a: Any, b: Any) -> Tensor:
    a, b = align(a, b)
    return torch.fmod(a, b) if context.get("fmod", 0) else torch.remainder(a, b)


@op("Pow")
def power(context: NodeContext, base: Any, exponent: Any) -> Tensor:
    """A scalar exponent stays a Python number: its gradient is finite at 0 (x**2)."""
    if isinstance(exponent, np.ndarray) and exponent.size == 1 and isinstance(base, Tensor):
        return base ** float(exponent.reshape(()))
    base, exponent = align(base, exponent)
    return torch.pow(base, exponent)


@op("Where")
def where(context: NodeContext, condition: Any, a: Any, b: Any) -> Tensor:
    reference = next(v for v in (a, b, condition) if isinstance(v, Tensor))
    condition = tensor_like(condition, reference)
    return torch.where(condition.bool(), tensor_like(a, reference), tensor_like(b, reference))


@op("Clip")
def clip(context: NodeContext, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    """Bounds are attributes before opset 11 and inputs after."""
    low = context.get("min") if low is None else low
    high = context.get("max") if high is None else high
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        x = x if low is None else torch.maximum(x, tensor_like(low, x))
        return x if high is None else torch.minimum(x, tensor_like(high, x))
    low = None if low is None else host(low).reshape(()).item()
    high = None if high is None else host(high).reshape(()).item()
    return x if low is None and high is None else torch.clamp(x, low, high)


@op("LeakyRelu")
def leaky_relu(context: NodeContext, x: Tensor) -> Tensor:
    return F.leaky_relu(x, context.get("alpha", 0.01))


@op("Elu")
def elu(context: NodeContext, x: Tensor) -> Tensor:
    return F.elu(x, context.get("alpha", 1.0))


@op("Celu")
def celu(context: NodeContext, x: Tensor) -> Tensor:
    return F.celu(x, context.get("alpha", 1.0))


@op("Selu")
def selu(context: NodeContext, x: Tensor) -> Tensor:
    alpha = context.get("alpha", 1.67326319217681884765625)
    gamma = context.get("gamma", 1.05070102214813232421875)
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0)))


@op("PRelu")
def prelu(context: NodeContext, x: Any, slope: Any) -> Tensor:
    x, slope = align(x, slope)
    return torch.where(x >= 0, x, x * slope)


@op("ThresholdedRelu")
def thresholded_relu(context: NodeContext, x: Tensor) -> Tensor:
    return torch.where(x > context.get("alpha", 1.0), x, torch.zeros_like(x))


@op("HardSigmoid")
def hard_sigmoid(context: NodeContext, x: Tensor) -> Tensor:
    return torch.clamp(x * context.get("alpha", 0.2) + context.get("beta", 0.5), 0, 1)


@op("Gelu")
def gelu(context: NodeContext, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=context.get("approximate", "none"))


@op("Swish")
def swish(context: NodeContext, x: Tensor) -> Tensor:
    return x * torch.sigmoid(x * context.get("alpha", 1.0))


def _along_axis(function: Callable[..., Tensor]) -> Callable[[NodeContext, Tensor], Tensor]:
    def apply(context: NodeContext, x: Tensor) -> Tensor:
        if context.opset >= 13:
            return function(x, dim=context.get("axis", -1))
        # Before opset 13 the input is coerced to two dimensions at `axis`.
        axis = context.get("axis", 1) % max(x.ndim, 1)
        return function(x.flatten(axis).flatten(0, max(axis - 1, 0)) if axis else x.reshape(1, -1), dim=-1).reshape(
            x.shape
        )

    return apply


register({"Softmax": _along_axis(torch.softmax), "LogSoftmax": _along_axis(torch.log_softmax)})


@op("Dropout")
def dropout(context: NodeContext, x: Tensor, *_: Any) -> Any:
    """Inference form: the identity, with a mask of ones where one is asked for."""
    return x if context.outputs == 1 else [x, torch.ones_like(x, dtype=torch.bool)]
