"""Normalisation layers in their inference form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from edgedafl.graph.executor.context import NodeContext, align, op, unsupported

__all__: list[str] = []


@op("BatchNormalization")
def batch_normalization(context: NodeContext, x: Any, scale: Any, bias: Any, mean: Any, var: Any, *_: Any) -> Tensor:
    x, scale, bias, mean, var = align(x, scale, bias, mean, var)
    if context.get("training_mode", 0):
        raise unsupported(context, "training_mode=1 (the model was exported in training mode)")
    if context.opset < 9 and context.get("spatial", 1) == 0:
        raise unsupported(context, "spatial=0")
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, context.get("epsilon", 1e-5))


@op("LayerNormalization")
def layer_normalization(context: NodeContext, x: Any, scale: Any, bias: Any = None) -> Any:
    x, scale, bias = align(x, scale, bias)
    axis = context.get("axis", -1) % x.ndim
    shape = list(x.shape[axis:])
    epsilon = context.get("epsilon", 1e-5)
    bias = None if bias is None else bias.expand(shape)
    y = F.layer_norm(x, shape, scale.expand(shape), bias, epsilon)
    if context.outputs == 1:
        return y
    axes = tuple(range(axis, x.ndim))
    mean = x.mean(axes, keepdim=True)
    deviation = torch.rsqrt(x.var(axes, unbiased=False, keepdim=True) + epsilon)
    return [y, mean, deviation][: context.outputs]


@op("RMSNormalization", "SimplifiedLayerNormalization")
def rms_normalization(context: NodeContext, x: Any, scale: Any) -> Tensor:
    x, scale = align(x, scale)
    shape = list(x.shape[context.get("axis", -1) % x.ndim :])
    return F.rms_norm(x, shape, scale.expand(shape), context.get("epsilon", 1e-5))


@op("InstanceNormalization")
def instance_normalization(context: NodeContext, x: Any, scale: Any, bias: Any) -> Tensor:
    x, scale, bias = align(x, scale, bias)
    epsilon = context.get("epsilon", 1e-5)
    return F.instance_norm(x, None, None, scale, bias, True, 0.0, epsilon)


@op("GroupNormalization")
def group_normalization(context: NodeContext, x: Any, scale: Any, bias: Any) -> Tensor:
    """Opset 18 gives scale and bias per group, opset 21 per channel."""
    x, scale, bias = align(x, scale, bias)
    groups, channels = context.get("num_groups"), x.shape[1]
    if scale.shape[0] != channels:
        scale = scale.repeat_interleave(channels // groups)
        bias = bias.repeat_interleave(channels // groups)
    return F.group_norm(x, groups, scale, bias, context.get("epsilon", 1e-5))


@op("LpNormalization")
def lp_normalization(context: NodeContext, x: Tensor) -> Tensor:
    order, axis = context.get("p", 2), context.get("axis", -1)
    length = torch.linalg.vector_norm(x, ord=order, dim=axis, keepdim=True)
    return torch.where(length == 0, torch.zeros_like(x), x / torch.where(length == 0, 1.0, length))


@op("MeanVarianceNormalization")
def mean_variance_normalization(context: NodeContext, x: Tensor) -> Tensor:
    axes = context.get("axes", [0, 2, 3])
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


@op("LRN")
def local_response_normalization(context: NodeContext, x: Tensor) -> Tensor:
    """Sum of squares over a window of channels, by average pooling along the channel axis."""
    size = context.get("size")
    flat = x.square().flatten(2).unsqueeze(1)
    padded = F.pad(flat, [0, 0, (size - 1) // 2, size // 2])
    total = F.avg_pool2d(padded, (size, 1), stride=1).squeeze(1).reshape(x.shape) * size
    alpha, beta = context.get("alpha", 1e-4), context.get("beta", 0.75)
    return x / (context.get("bias", 1.0) + alpha / size * total) ** beta
