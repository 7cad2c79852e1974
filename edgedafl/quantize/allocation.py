"""Bits for each layer's weights: many where the scores feel it, few where a layer holds most of the bytes.

What rounding a layer does to the scores is told to first order, by gradients along random directions of the scores
(the sensitivity of mixed-precision quantization, e.g. Dong et al. 2019, arXiv 1905.03696, with output noise in place of
the Hessian). Rounding noise falls with the square of the number of integers, so one price per bit decides all layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor

from edgedafl.graph.edit import attribute
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.packed import ALL_BITS, WEIGHT_BITS, largest_integer
from edgedafl.graph.pruning import layer_of
from edgedafl.quantize.steps import on_grid, weight_steps

__all__ = ["NIBBLE", "allocate_bits", "rounding_noise"]

NIBBLE = 4.0
"""Bits of a weight of which two lie in a byte."""

_IMAGES, _DIRECTIONS = 16, 2
_COARSE = 4.0
"""Bits at which noise is looked at."""
_HALVINGS = 60
_LEAST_NOISE = 1e-12


def allocate_bits(
    model: onnx.ModelProto, images: np.ndarray, mean_bits: float, *, nibbles: bool = False
) -> dict[str, float]:
    """Bits by weight, so that the mean over all weights is at most `mean_bits` and the scores move least.

    Args:
        model: Float32 graph at batch 1.
        images: float32 (N,C,H,W) in model space; a few are looked at.
        mean_bits: 3.5 to 8; at 8 all have eight. Where that cannot be had, as few as can.
        nibbles: Whether a weight has eight bits or four, and one of a depthwise layer eight.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,2] x) => (float[1,2] y)
        ...     <float[2,2] w = {1, 2, 3, 4}, float[2,2] v = {100, 200, 300, 500}>
        ...     { a = MatMul(x, w)  y = MatMul(a, v) }'''
        >>> allocate_bits(onnx.parser.parse_model(text), np.ones((4, 2), np.float32), 8.0)
        {'w': 8.0, 'v': 8.0}
    """
    noise = rounding_noise(model, images[:_IMAGES])
    counts = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer if tensor.name in noise}
    if mean_bits >= ALL_BITS:
        return dict.fromkeys(noise, ALL_BITS)
    choices: dict[str, Sequence[float]] = dict.fromkeys(noise, (ALL_BITS, NIBBLE) if nibbles else WEIGHT_BITS)
    if nibbles:
        choices |= dict.fromkeys(_depthwise(model) & noise.keys(), (ALL_BITS,))
    total = sum(counts.values())
    # Between the prices at which every layer takes all bits and at which none does, halved on a logarithmic scale.
    low, high = -40.0, 10.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        bits = _at_price(noise, counts, float(np.exp(middle)), choices)
        if sum(bits[name] * counts[name] for name in bits) > mean_bits * total:
            low = middle
        else:
            high = middle
    return _at_price(noise, counts, float(np.exp(high)), choices)


def _depthwise(model: onnx.ModelProto) -> set[str]:
    """Weights of convolutions whose channels each have a kernel of their own."""
    return {node.input[1] for node in model.graph.node if node.op_type == "Conv" and attribute(node, "group", 1) > 1}


def _at_price(
    noise: Mapping[str, float], counts: Mapping[str, int], price: float, choices: Mapping[str, Sequence[float]]
) -> dict[str, float]:
    """Bits at which noise and what the bits cost are least together, layer by layer."""
    coarse = largest_integer(_COARSE)

    def cost(name: str, bits: float) -> float:
        return noise[name] * (coarse / largest_integer(bits)) ** 2 + price * counts[name] * bits

    return {name: min(choices[name], key=lambda bits: cost(name, bits)) for name in noise}


def rounding_noise(model: onnx.ModelProto, images: np.ndarray) -> dict[str, float]:
    """What rounding each layer's weights to four bits adds to the scores' variance, by weight.

    Args:
        model: Float32 graph at batch 1.
        images: float32 (N,C,H,W) in model space.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,2] x) => (float[1,2] y)
        ...     <float[2,2] w = {1, 2, 3, 4.4}, float[2,2] v = {9, 20, 30, 50}>
        ...     { a = MatMul(x, w)  y = MatMul(a, v) }'''
        >>> noise = rounding_noise(onnx.parser.parse_model(text), np.ones((4, 2), np.float32))
        >>> sorted(noise), min(noise.values()) > 0
        (['v', 'w'], True)
    """
    network = OnnxModule(model)
    changes: dict[str, Tensor] = {}
    for node in model.graph.node:
        layer = layer_of(node, network)
        if layer is not None and layer.weight not in changes:
            whole = layer.read(network).clone()
            exact = network.initializer(layer.weight).clone()
            weight, largest = whole[..., :-1], largest_integer(_COARSE)
            rounded = on_grid(weight, weight_steps(weight, largest), largest)
            layer.write(network, torch.cat([rounded, whole[..., -1:]], 2))
            changes[layer.weight] = network.initializer(layer.weight) - exact
            layer.write(network, whole)
    weights = network.make_trainable(changes)
    random = torch.Generator().manual_seed(0)
    found = dict.fromkeys(changes, _LEAST_NOISE)
    for image in torch.from_numpy(images).split(1):
        scores = network(image).reshape(-1)
        for place in range(_DIRECTIONS):
            direction = torch.randn(scores.shape, generator=random)
            direction -= direction.mean() if len(scores) > 1 else 0.0  # a constant in all scores changes no answer
            gradients = torch.autograd.grad(
                scores @ direction, list(weights.values()), retain_graph=place + 1 < _DIRECTIONS, allow_unused=True
            )
            for name, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    found[name] += float((gradient * changes[name]).sum()) ** 2
    return found
