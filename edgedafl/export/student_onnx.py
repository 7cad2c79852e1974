"""A trained student as an ONNX model."""

from __future__ import annotations

import onnx
import torch
from torch import nn

from edgedafl.graph.canonicalize import IMAGE, LOGITS
from edgedafl.graph.edit import average_as_pooling, clamp_ir, strip_metadata
from edgedafl.graph.from_module import module_to_onnx
from edgedafl.graph.parity import FP32_TOLERANCE, compare, require_parity
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.graph.simplify import simplify
from edgedafl.graph.trainable import TrainableGraph

__all__ = ["INPUT_NAME", "OUTPUT_NAME", "student_to_onnx"]

INPUT_NAME = IMAGE
OUTPUT_NAME = LOGITS


def _at_size(model: onnx.ModelProto, input_shape: tuple[int, int, int]) -> onnx.ModelProto:
    """Declare the size of images, which may be smaller than the teacher's; in place."""
    sides = model.graph.input[0].type.tensor_type.shape.dim
    for side, value in zip(sides[1:], input_shape, strict=True):
        side.dim_value = value
    del model.graph.value_info[:]
    return model


def student_to_onnx(
    module: nn.Module, input_shape: tuple[int, int, int], *, opset: int = 18, ir_version: int = 8
) -> onnx.ModelProto:
    """Export with a free batch dimension; accepted after parity with the module.

    Args:
        module: The student; put into evaluation mode. One that is a graph already keeps its operator set.
        input_shape: (C, H, W).
        opset: Operator set, 18 or above.
        ir_version: Highest IR version.

    Raises:
        CheckFailedError: If ONNX Runtime's answers differ from torch's.

    Examples:
        >>> from edgedafl.students import build_student
        >>> student = build_student("lenet5-half", (1, 28, 28), 10)
        >>> [value.name for value in student_to_onnx(student.module, (1, 28, 28)).graph.output]
        ['logits']
    """
    module = module.eval().cpu()
    seed = torch.Generator().manual_seed(0)
    example = torch.randn(2, *input_shape, generator=seed)
    if isinstance(module, TrainableGraph):
        model = _at_size(module.to_onnx(), input_shape)
    else:
        model = module_to_onnx(module, example, input_name=INPUT_NAME, output_name=OUTPUT_NAME, opset=opset)
    model = clamp_ir(average_as_pooling(simplify(strip_metadata(model))), ir_version)
    with torch.no_grad():
        expected = module(example).numpy()
    found = run_batched(open_session(model), example.numpy())
    require_parity(compare(expected, found), FP32_TOLERANCE, "Exporting the student")
    return model
