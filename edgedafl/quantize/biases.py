"""Biases that make up for what rounding does to a layer's mean.

After the bias correction of data-free quantization (Nagel et al. 2019, arXiv 1906.04721, section 4.2), with
two changes for synthetic images. The mean error of a channel is taken image by image, and the median image
counts: some images run far beyond the ranges, and the mean over all would follow those. And only a part of it
is made up for, since real images share only a part of it.
"""

from __future__ import annotations

import torch

from edgedafl.graph.executor import OnnxModule, Walk
from edgedafl.graph.pruning import Layer

__all__ = ["correct_bias"]

_SHARE = 0.5
"""Of the error that is made up for. All of it cost a MobileNetV2 a point that half did not (docs/benchmarks.md)."""
_PIECE = 8  # images


def correct_bias(layer: Layer, module: OnnxModule, exact: Walk, coarse: Walk) -> None:
    """Move a layer's bias, and what it has made with the old one, towards the float layer's mean.

    Args:
        layer: Of the rounded network, with a bias.
        module: The rounded network.
        exact: The float network, after this layer.
        coarse: The rounded one, after this layer.

    Examples:
        >>> import onnx
        >>> from edgedafl.graph.pruning import layer_of
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,1,2,2] x) => (float[n,2,2,2] y)
        ...     <float[2,1,1,1] w = {2, 3}, float[2] b = {0, 0}> { y = Conv(x, w, b) }'''
        >>> float_network, rounded = (OnnxModule(onnx.parser.parse_model(text)) for _ in range(2))
        >>> _ = rounded.initializer("w").mul_(0.5)
        >>> images = {"x": torch.ones(4, 1, 2, 2)}
        >>> for exact, coarse in zip(float_network.walk(images), rounded.walk(images), strict=True):
        ...     exact.run()
        ...     coarse.run()
        ...     correct_bias(layer_of(coarse.node, rounded), rounded, exact, coarse)
        >>> rounded.initializer("b")
        tensor([0.5000, 0.7500])
    """
    name = coarse.node.output[0]
    wanted, made = exact.values[name], coarse.values[name]
    axis = layer.axis % made.ndim
    inner = [i for i in range(1, made.ndim) if i != axis]
    # In pieces: both networks' values of all images fill the memory already.
    missing = (w - m for w, m in zip(wanted.split(_PIECE), made.split(_PIECE), strict=True))
    each = torch.cat([m.mean(inner) if inner else m for m in missing])  # (N, channels)
    move = _SHARE * each.median(0).values
    assert layer.bias is not None
    bias = module.initializer(layer.bias)
    bias.data.add_(move.reshape(bias.shape))
    made.add_(move.reshape([-1 if i == axis else 1 for i in range(made.ndim)]))
