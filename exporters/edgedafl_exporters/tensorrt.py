"""TensorRT: a typed ONNX and the scripts that build and time its engine on the device.

Engines are bound to a device, a TensorRT version and a power mode, so none is shipped. All
precision is in the graph (float16 tensors and Q/DQ pairs): TensorRT 11 knows nothing else, and
10.3 takes it as a strongly typed network.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgedafl.errors import CheckFailedError
from edgedafl.export import Artifacts, Bundle
from edgedafl.targets import Target
from edgedafl_exporters.contents import (
    answer_with_onnxruntime,
    compose,
    expected_outputs,
    model_files,
    programs,
    tolerance_of,
)
from edgedafl_exporters.tensorrt_steps import PACKAGES

__all__ = ["TensorRtExporter"]

_CHECKED_IMAGES = 4
_BUILD_SECONDS = 900


class TensorRtExporter:
    """A bundle that needs trtexec and a POSIX shell on the device, nothing else."""

    name = "tensorrt"

    def export(self, artifacts: Artifacts, target: Target, directory: Path) -> Bundle:
        """Write the bundle."""
        variants = {precision: f"model.{precision}.onnx" for precision in artifacts.models}
        outputs = expected_outputs(artifacts)
        files = {**model_files(artifacts, variants), **_raw_examples(artifacts, outputs)}
        files["variants.txt"] = _table(artifacts, variants).encode()
        return compose(
            artifacts,
            target,
            directory,
            exporter=self.name,
            variants=variants,
            files=files,
            outputs=outputs,
            run=self.executables(),
            readme_name="README_trt.md",
        )

    def executables(self) -> dict[str, bytes]:
        """What runs on the device."""
        return programs("bench_trt.sh", build="build_trt.sh")

    def try_build(self, file: Path) -> dict[str, Any]:
        """Build a shipped file's engine here, where some TensorRT is installed; it is thrown away.

        Raises:
            CheckFailedError: If TensorRT refuses the model.
        """
        if not any(importlib.util.find_spec(name) for name in PACKAGES):
            return {}
        command = [sys.executable, "-m", "edgedafl_exporters.tensorrt_steps", "build", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
            raise CheckFailedError(f"Building {file.name} failed: {reason}", "Report it with the model.")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def predict(self, file: Path, images: np.ndarray) -> np.ndarray:
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
