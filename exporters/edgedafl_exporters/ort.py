"""ONNX Runtime's own format, for minimal builds on phones and boards."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

from edgedafl.errors import EnvironmentMissingError
from edgedafl.export import Artifacts, Bundle
from edgedafl.graph.edit import model_bytes
from edgedafl.targets import Target
from edgedafl_exporters.contents import CpuExporter, answer_with_onnxruntime, compose, expected_outputs

__all__ = ["OrtExporter"]

# The format bakes platform choices in: one made for x86 does not load on ARM.
_PLATFORMS = {"aarch64": "arm", "x86_64": "amd64"}
_CONVERSION_SECONDS = 300


class OrtExporter(CpuExporter):
    """A bundle of .ort files beside the .onnx file they were made from.

    ONNX Runtime's converter does not write the same bytes twice, so neither does this exporter.
    """

    name = "ort"

    def export(self, artifacts: Artifacts, target: Target, directory: Path) -> Bundle:
        """Write the bundle."""
        variants = {precision: f"model.{precision}.ort" for precision in artifacts.models}
        files = _convert(artifacts.models, _PLATFORMS[target.architecture])
        source = f"model.{artifacts.primary}.onnx"
        files[source] = model_bytes(artifacts.models[artifacts.primary])
        return compose(
            artifacts,
            target,
            directory,
            exporter=self.name,
            variants=variants,
            files=files,
            outputs=expected_outputs(artifacts),
            run=self.executables(),
            changes={"runtime": "onnxruntime", "source": source},
        )

    def predict(self, file: Path, images: np.ndarray) -> np.ndarray:
        """Scores of a shipped file."""
        return answer_with_onnxruntime(file, images)


def _convert(models: dict[str, onnx.ModelProto], platform: str) -> dict[str, bytes]:
    """Run ONNX Runtime's converter in a child process: it sets global session options."""
    with tempfile.TemporaryDirectory() as folder:
        for precision, model in models.items():
            Path(folder, f"model.{precision}.onnx").write_bytes(model_bytes(model))
        command = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort", folder]
        command += ["--optimization_style", "Fixed", "--target_platform", platform]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_CONVERSION_SECONDS, env=environment, check=False
        )
        files = {f"model.{p}.ort": Path(folder, f"model.{p}.ort") for p in models}
        if done.returncode or not all(file.is_file() for file in files.values()):
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise EnvironmentMissingError(
                f"ONNX Runtime's converter to the ORT format failed: {reason}",
                "Use `--exporter onnx`: ONNX Runtime on the device reads .onnx files as well.",
            )
        return {name: file.read_bytes() for name, file in files.items()}
