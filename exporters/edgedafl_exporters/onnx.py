"""Plain ONNX: runs wherever ONNX Runtime does."""

from __future__ import annotations

from pathlib import Path

from edgedafl.export import Artifacts, Bundle, write_bundle
from edgedafl.targets import Target
from edgedafl_exporters.contents import (
    base_entries,
    expected_io,
    expected_outputs,
    model_files,
    readme,
    template,
)

__all__ = ["OnnxExporter"]


class OnnxExporter:
    """A bundle of .onnx files, one per precision, with `bench` in Python."""

    name = "onnx"

    def export(self, artifacts: Artifacts, target: Target, directory: Path) -> Bundle:
        """Write the bundle."""
        variants = {precision: f"model.{precision}.onnx" for precision in artifacts.models}
        files = model_files(artifacts, variants)
        entries = base_entries(artifacts, target, exporter=self.name, variants=variants)
        files["expected_io.npz"] = expected_io(artifacts, expected_outputs(artifacts))
        files["bench"] = template("bench_ort.py").encode()
        files["README.md"] = readme("README_ort.md", entries, target)
        return write_bundle(directory, files, entries, executable=("bench",))
