"""The op table, one module per family; importing this package fills it."""

from edgedafl.graph.executor.ops import (
    attention,
    contrib,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    quantized,
    reduction,
    resize,
    sequence,
    shape,
)

__all__ = [
    "attention",
    "contrib",
    "convolution",
    "elementwise",
    "indexing",
    "linear",
    "normalization",
    "pooling",
    "quantized",
    "reduction",
    "resize",
    "sequence",
    "shape",
]
