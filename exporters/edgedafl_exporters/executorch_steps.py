"""What runs in a process of its own because it imports ExecuTorch.

python -m edgedafl_exporters.executorch_steps build FOLDER PRECISION...
python -m edgedafl_exporters.executorch_steps answer FILE IMAGES SCORES
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from edgedafl.graph.executor import OnnxModule

__all__ = ["answer", "build"]


def build(folder: Path, precisions: list[str]) -> None:
    """Write `model.<precision>.pte` of `float.onnx`, int8 calibrated on `calibration.npy`."""
    module = OnnxModule(onnx.load(folder / "float.onnx")).eval()
    images = torch.from_numpy(np.load(folder / "calibration.npy"))
    example = (images[:1],)
    for precision in precisions:
        with torch.no_grad():
            program = torch.export.export(module, example, strict=False)
            if precision == "int8":
                program = torch.export.export(_quantized(program.module(), images), example)
        (folder / f"model.{precision}.pte").write_bytes(_lowered(program))


def _quantized(module: Any, images: torch.Tensor) -> Any:
    """Symmetric int8, weights per channel: the form whose kernels XNNPACK has for ARM."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(module, quantizer)
    for image in images:
        prepared(image[None])
    return convert_pt2e(prepared)


def _lowered(program: Any) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return bytes(lowered.to_executorch().buffer)


def answer(file: Path, images: Path, scores: Path) -> None:
    """Run a .pte file on images one by one."""
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(file).load_method("forward")
    rows = [method.execute([torch.from_numpy(image[None])])[0].numpy() for image in np.load(images)]
    np.save(scores, np.concatenate(rows))


def _main(command: str, *arguments: str) -> None:
    torch.set_num_threads(1)
    if command == "build":
        build(Path(arguments[0]), list(arguments[1:]))
    else:
        answer(Path(arguments[0]), Path(arguments[1]), Path(arguments[2]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
