"""Multiply-accumulates of a torch module, layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["LayerSize", "module_layers", "module_macs"]

_POOLS = {"max_pool2d", "max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d"}
_JOINS = {"add", "add_", "mul", "mul_", "cat"}


@dataclass(frozen=True)
class LayerSize:
    """One layer that takes time of its own.

    Attributes:
        kind: `conv3x3`, `conv`, `pointwise`, `depthwise`, `grouped` or `linear`; `pool` and `add`
            have no multiply-accumulates.
        macs: Multiply-accumulates per image.
        weights: Count of weights.
        inputs: Elements read per image.
        outputs: Elements written per image.
        channels: Channels in and out; features of a linear layer.
    """

    kind: str
    macs: int
    weights: int
    inputs: int
    outputs: int
    channels: tuple[int, int]

    @property
    def elements(self) -> int:
        """Elements read and written per image."""
        return self.inputs + self.outputs


def module_macs(module: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one image.

    Examples:
        >>> module_macs(nn.Conv2d(3, 8, 3, padding=1), (3, 32, 32)) == 8 * 3 * 3 * 3 * 32 * 32
        True
    """
    return sum(layer.macs for layer in module_layers(module, input_shape))


def module_layers(module: nn.Module, input_shape: tuple[int, int, int]) -> list[LayerSize]:
    """Run one blank image and record every operation that takes time of its own.

    Operations are recorded where torch dispatches them, so functional forms count as modules do.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(7200, 10))
        >>> [layer.kind for layer in module_layers(network, (3, 32, 32))]
        ['conv3x3', 'linear']
    """
    was_training = module.training
    device = next(module.parameters()).device
    recorder = _Recorder()
    try:
        with torch.no_grad(), recorder:
            module.eval()(torch.zeros(1, *input_shape, device=device))
    finally:
        module.train(was_training)
    return recorder.rows


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows: list[LayerSize] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        row = _row(function.overloadpacket.__name__, args, result)
        if row is not None:
            self.rows.append(row)
        return result


def _row(name: str, args: Any, result: Any) -> LayerSize | None:
    output = result[0] if isinstance(result, tuple) else result
    if not isinstance(output, Tensor):
        return None
    if name == "convolution":
        return _convolution(args, output)
    if name in ("addmm", "mm"):
        data, weight = args[-2:]
        return _linear(data, weight.numel(), output)
    if output.ndim != 4:
        return None
    if name in _POOLS or (name == "mean" and args[0].ndim == 4):
        return _between("pool", [args[0]], output)
    images = [a for a in (args[0] if name == "cat" else args[:2]) if isinstance(a, Tensor) and a.ndim == 4]
    return _between("add", images, output) if name in _JOINS and len(images) > 1 else None


def _convolution(args: Any, output: Tensor) -> LayerSize:
    data, weight, stride, groups = args[0], args[1], args[3], args[8]
    macs = weight.numel() * math.prod(output.shape[2:])
    kind = _kind(tuple(weight.shape[2:]), tuple(stride), groups, data.shape[1])
    return LayerSize(kind, macs, weight.numel(), data.numel(), output.numel(), (data.shape[1], output.shape[1]))


def _linear(data: Tensor, weights: int, output: Tensor) -> LayerSize:
    macs = weights * math.prod(output.shape[:-1])
    return LayerSize("linear", macs, weights, data.numel(), output.numel(), (data.shape[-1], output.shape[-1]))


def _between(kind: str, images: list[Tensor], output: Tensor) -> LayerSize:
    inputs = sum(image.numel() for image in images)
    return LayerSize(kind, 0, 0, inputs, output.numel(), (images[0].shape[1], output.shape[1]))


def _kind(kernel: tuple[int, ...], stride: tuple[int, ...], groups: int, channels: int) -> str:
    if groups > 1:
        return "depthwise" if groups == channels else "grouped"
    if set(kernel) == {1}:
        return "pointwise"
    return "conv3x3" if kernel == (3, 3) and set(stride) == {1} else "conv"
