"""Multiply-accumulates of a torch module, layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["ModuleLayer", "module_layers", "module_macs"]


@dataclass(frozen=True)
class ModuleLayer:
    """One weighted layer: `kind` and sizes as in `graph.cost.LayerCost`."""

    name: str
    kind: str
    macs: int
    weights: int
    elements: int


def module_macs(module: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one image."""
    return sum(layer.macs for layer in module_layers(module, input_shape))


def module_layers(module: nn.Module, input_shape: tuple[int, int, int]) -> list[ModuleLayer]:
    """Run one blank image and record every convolution and linear layer."""
    rows: list[ModuleLayer] = []
    handles = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            handles.append(layer.register_forward_hook(_recorder(name, rows)))
    was_training = module.training
    device = next(module.parameters()).device
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, *input_shape, device=device))
    finally:
        module.train(was_training)
        for handle in handles:
            handle.remove()
    return rows


def _recorder(name: str, rows: list[ModuleLayer]) -> Any:
    def record(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
        elements = inputs[0].numel() + output.numel()
        weights = layer.weight.numel()
        if isinstance(layer, nn.Linear):
            rows.append(ModuleLayer(name, "linear", weights, weights, elements))
            return
        macs = int(weights) * math.prod(output.shape[2:])
        rows.append(ModuleLayer(name, _kind(layer), macs, weights, elements))

    return record


def _kind(layer: Any) -> str:
    if layer.groups > 1 and layer.groups == layer.in_channels:
        return "depthwise"
    if layer.kernel_size == (1, 1):
        return "pointwise"
    return "conv3x3" if layer.kernel_size == (3, 3) and layer.stride == (1, 1) else "conv"
