"""Plain ONNX: runs wherever ONNX Runtime does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from edgedafl.export import Artifacts, Bundle
from edgedafl.graph.packed import LOADING_BYTES, count_packed, packed
from edgedafl.targets import Target
from edgedafl_exporters.contents import CpuExporter, answer_with_onnxruntime, compose, expected_outputs, model_files

__all__ = ["OnnxExporter"]


class OnnxExporter(CpuExporter):
    """A bundle of .onnx files, one per precision, with `bench` in Python.

    Attributes:
        name: Of the exporter.
        runtime: That opens the files on the device.
    """

    name = "onnx"
    runtime = "onnxruntime"

    def export(self, artifacts: Artifacts, target: Target, directory: Path) -> Bundle:
        """Write the bundle."""
        variants = {precision: f"model.{precision}.onnx" for precision in artifacts.models}
        models = self.stored(artifacts)
        loading = LOADING_BYTES * count_packed(models[artifacts.primary].graph)
        return compose(
            artifacts,
            target,
            directory,
            exporter=self.name,
            variants=variants,
            files=model_files(replace(artifacts, models=models), variants),
            outputs=self.expected(artifacts),
            run=self.executables(),
            changes={"runtime": self.runtime, **({"loading_bytes": loading} if loading else {})},
        )

    def stored(self, artifacts: Artifacts) -> dict[str, onnx.ModelProto]:
        """The graphs as they lie in files, by precision: ONNX Runtime takes packed weights apart when it loads them."""
        return {precision: packed(model) for precision, model in artifacts.models.items()}

    def expected(self, artifacts: Artifacts) -> dict[str, np.ndarray]:
        """Scores of the example images by precision, which `bench` and `verify` compare with."""
        return expected_outputs(artifacts)

    def predict(self, file: Path, images: np.ndarray) -> np.ndarray:
        """Scores of a shipped file."""
        return answer_with_onnxruntime(file, images)
