"""How much of an integer model really runs in integers, once its runtime has fused it."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edgedafl.graph.cost import layer_costs
from edgedafl.graph.image_input import find_image_input
from edgedafl.graph.runtime import optimized

__all__ = ["Coverage", "integer_coverage"]

_INTEGER = {
    "QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "ConvIntegerToFloat",
    "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearConvTranspose",
}  # fmt: skip


@dataclass(frozen=True)
class Coverage:
    """Weighted layers by the arithmetic they run in.

    Attributes:
        share: Multiply-accumulates in integers, over all, in [0, 1].
        integer: Names of the layers that run in integers.
        floating: Names of the others.
    """

    share: float
    integer: tuple[str, ...]
    floating: tuple[str, ...]


def integer_coverage(model: onnx.ModelProto, *, runtime: str, architecture: str) -> Coverage:
    """Count what runs in integers.

    Args:
        model: A quantized graph with static shapes.
        runtime: `onnxruntime`: its own optimizer is asked, as it would act on `architecture`.
            `tensorrt`: a layer counts whose data and weights both come out of DequantizeLinear,
            which is the pattern its builder turns into integer kernels.
        architecture: `aarch64` or `x86_64`.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,3,8,8] x) => (float[1,2,8,8] y)
        ...     <float[2,3,1,1] w = {1, 2, 3, 4, 5, 6}> { y = Conv(x, w) }'''
        >>> integer_coverage(onnx.parser.parse_model(text), runtime="onnxruntime", architecture="aarch64")
        Coverage(share=0.0, integer=(), floating=('y',))
    """
    image = find_image_input(model)
    layers = [layer for layer in layer_costs(model, image) if layer.macs]
    names = _fused_by_onnxruntime(model, architecture) if runtime == "onnxruntime" else _dequantized(model)
    integer = [layer for layer in layers if layer.name in names]
    total = sum(layer.macs for layer in layers)
    share = sum(layer.macs for layer in integer) / total if total else 0.0
    floating = tuple(layer.name for layer in layers if layer not in integer)
    return Coverage(share, tuple(layer.name for layer in integer), floating)


def _fused_by_onnxruntime(model: onnx.ModelProto, architecture: str) -> set[str]:
    # Nodes that its optimizer moves get a suffix to their name.
    return {
        node.name.split("_token_")[0] for node in optimized(model, architecture).graph.node if node.op_type in _INTEGER
    }


def _dequantized(model: onnx.ModelProto) -> set[str]:
    results = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return {
        node.name
        for node in model.graph.node
        if len(node.input) > 1 and node.input[0] in results and node.input[1] in results
    }
