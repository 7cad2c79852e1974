"""TensorRT: a typed ONNX and the scripts that build and time its engine on the device.

Engines are bound to a device, a TensorRT version and a power mode, so none is shipped. All
precision is in the graph (float16 tensors and Q/DQ pairs): TensorRT 11 knows nothing else, and
10.3 takes it as a strongly typed network.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgedafl.export import Artifacts, Bundle
from edgedafl.targets import Target
from edgedafl_exporters.contents import (
    answer_with_onnxruntime,
    compose,
    expected_outputs,
    model_files,
    template,
    tolerance_of,
)

__all__ = ["TensorRtExporter"]

_CHECKED_IMAGES = 4


class TensorRtExporter:
    """A bundle that needs trtexec and a POSIX shell on the device, nothing else."""

    name = "tensorrt"

    def export(self, artifacts: Artifacts, target: Target, directory: Path) -> Bundle:
        """Write the bundle."""
        variants = {precision: f"model.{precision}.onnx" for precision in artifacts.models}
        outputs = expected_outputs(artifacts)
        files = {**model_files(artifacts, variants), **_raw_examples(artifacts, outputs)}
        files["variants.txt"] = _table(artifacts, variants).encode()
        files["build.sh"] = template("build_trt.sh").encode()
        return compose(
            artifacts,
            target,
            directory,
            exporter=self.name,
            variants=variants,
            files=files,
            outputs=outputs,
            bench="bench_trt.sh",
            readme_name="README_trt.md",
            executable=("bench", "build.sh"),
        )

    def answer(self, file: Path, images: np.ndarray) -> np.ndarray:
        """Scores of a shipped file, from ONNX Runtime: engines exist on devices only."""
        return answer_with_onnxruntime(file, images)


def _raw_examples(artifacts: Artifacts, outputs: dict[str, np.ndarray]) -> dict[str, bytes]:
    """Inputs as trtexec reads them, expected logits as awk does: one number per line."""
    files = {}
    for index, image in enumerate(artifacts.inputs[:_CHECKED_IMAGES]):
        files[f"input_{index}.bin"] = np.ascontiguousarray(image, "<f4").tobytes()
        for precision, logits in outputs.items():
            lines = "\n".join(f"{value:.7g}" for value in logits[index])
            files[f"expected_{index}.{precision}.txt"] = f"{lines}\n".encode()
    return files


def _table(artifacts: Artifacts, variants: dict[str, str]) -> str:
    """Precision, file, tolerance and input name, for a shell that cannot read JSON."""
    name = artifacts.models[artifacts.primary].graph.input[0].name
    return "".join(f"{precision} {file} {tolerance_of(precision)} {name}\n" for precision, file in variants.items())
