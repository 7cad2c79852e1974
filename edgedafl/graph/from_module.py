"""A torch module as an ONNX model, written by torch's own exporter."""

from __future__ import annotations

import logging
import warnings

import onnx
import torch
from torch import Tensor, nn

__all__ = ["LOWEST_OPSET", "module_to_onnx"]

LOWEST_OPSET = 18
"""What torch's exporter writes without converting."""


def module_to_onnx(
    module: nn.Module,
    example: Tensor,
    *,
    input_name: str,
    output_name: str,
    opset: int = LOWEST_OPSET,
    optimize: bool = True,
) -> onnx.ModelProto:
    """Export with a free batch dimension.

    Args:
        module: In evaluation mode, on the CPU.
        example: Two images (2,C,H,W).
        input_name: Of the image.
        output_name: Of the scores.
        opset: Operator set, 18 or above.
        optimize: Whether constants and BatchNorms are folded; the names of values are the same either way.

    Examples:
        >>> module = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
        >>> model = module_to_onnx(module, torch.zeros(2, 3, 2, 2), input_name="image", output_name="scores")
        >>> [value.name for value in [*model.graph.input, *model.graph.output]]
        ['image', 'scores']
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            input_names=[input_name],
            output_names=[output_name],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=max(opset, LOWEST_OPSET),
            verbose=False,
            optimize=optimize,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model
