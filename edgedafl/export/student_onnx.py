"""A trained student as an ONNX model."""

from __future__ import annotations

import logging
import warnings

import onnx
import torch
from torch import nn

from edgedafl.graph.edit import average_as_pooling, clamp_ir, strip_metadata
from edgedafl.graph.parity import FP32_TOLERANCE, compare, require_parity
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.graph.simplify import simplify

__all__ = ["INPUT_NAME", "OUTPUT_NAME", "student_to_onnx"]

INPUT_NAME = "image"
OUTPUT_NAME = "logits"
_LOWEST_OPSET = 18  # what the exporter writes without converting


def student_to_onnx(
    module: nn.Module, input_shape: tuple[int, int, int], *, opset: int = 18, ir_version: int = 8
) -> onnx.ModelProto:
    """Export with a free batch dimension; accepted after parity with the module.

    Args:
        module: The student; put into evaluation mode.
        input_shape: (C, H, W).
        opset: Operator set, 18 or above.
        ir_version: Highest IR version.

    Raises:
        CheckFailedError: If ONNX Runtime's answers differ from torch's.
    """
    module = module.eval().cpu()
    seed = torch.Generator().manual_seed(0)
    example = torch.randn(2, *input_shape, generator=seed)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=max(opset, _LOWEST_OPSET),
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    strip_metadata(model)
    model = simplify(model)
    average_as_pooling(model)
    clamp_ir(model, ir_version)
    with torch.no_grad():
        expected = module(example).numpy()
    found = run_batched(open_session(model), example.numpy())
    require_parity(compare(expected, found), FP32_TOLERANCE, "Exporting the student")
    return model
