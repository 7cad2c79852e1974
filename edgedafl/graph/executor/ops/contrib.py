"""Fused operators that ONNX Runtime's optimiser writes (domain com.microsoft)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from edgedafl.graph.executor.context import (
    MICROSOFT,
    NodeContext,
    align,
    op,
    register,
    tensor_like,
    unsupported,
)
from edgedafl.graph.executor.ops.convolution import convolve

__all__: list[str] = []

_ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "Clip": torch.clamp,
    "HardSigmoid": lambda x, alpha, beta: torch.clamp(alpha * x + beta, 0, 1),
    "HardSwish": F.hardswish,
    "LeakyRelu": F.leaky_relu,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
}


@op("FusedConv", domain=MICROSOFT)
def fused_conv(context: NodeContext, x: Any, weight: Any, bias: Any = None, addend: Any = None) -> Tensor:
    """Convolution, then an optional sum (residual), then an optional activation."""
    y = convolve(context, x, weight, bias)
    y = y if addend is None else y + tensor_like(addend, y)
    name = context.get("activation")
    if not name:
        return y
    if name not in _ACTIVATIONS:
        raise unsupported(context, f"activation={name}")
    return _ACTIVATIONS[name](y, *context.get("activation_params", []))


def _gelu(context: NodeContext, x: Tensor) -> Tensor:
    return F.gelu(x)


def _fast_gelu(context: NodeContext, x: Tensor, bias: Any = None) -> Tensor:
    return F.gelu(x if bias is None else x + tensor_like(bias, x), approximate="tanh")


def _bias_gelu(context: NodeContext, x: Tensor, bias: Any) -> Tensor:
    return F.gelu(x + tensor_like(bias, x))


def _quick_gelu(context: NodeContext, x: Tensor) -> Tensor:
    return x * torch.sigmoid(context.get("alpha", 1.702) * x)


register(
    {"Gelu": _gelu, "FastGelu": _fast_gelu, "BiasGelu": _bias_gelu, "QuickGelu": _quick_gelu},
    domain=MICROSOFT,
)


@op("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(
    context: NodeContext, x: Any, skip: Any, gamma: Any, beta: Any = None, bias: Any = None
) -> Any:
    x, skip, gamma, beta, bias = align(x, skip, gamma, beta, bias)
    total = x + skip if bias is None else x + skip + bias
    y = F.layer_norm(total, total.shape[-1:], gamma, beta, context.get("epsilon", 1e-12))
    return y if context.outputs == 1 else [y, None, None, total][: context.outputs]
