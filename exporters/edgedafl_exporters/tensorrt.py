"""TensorRT: a typed ONNX and the scripts that build and time its engine on the device.

Engines are bound to a device, a TensorRT version and a power mode, so none is shipped. All
precision is in the graph (float16 tensors and Q/DQ pairs): TensorRT 11 knows nothing else, and
10.3 takes it as a strongly typed network.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

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

__all__ = ["TensorRtExporter"]

_CHECKED_IMAGES = 4


class TensorRtExporter:
    """A bundle that needs trtexec and a POSIX shell on the device, nothing else."""

    name = "tensorrt"

    def export(self, artifacts: Artifacts, target: Target, directory: Path) -> Bundle:
        """Write the bundle."""
        variants = {precision: f"model.{precision}.onnx" for precision in artifacts.models}
        files = model_files(artifacts, variants)
        entries = base_entries(artifacts, target, exporter=self.name, variants=variants)
        outputs = expected_outputs(artifacts)
        files["expected_io.npz"] = expected_io(artifacts, outputs)
        files |= _raw_examples(artifacts, outputs)
        files["variants.txt"] = _table(entries).encode()
        files["build.sh"] = template("build_trt.sh").encode()
        files["bench"] = template("bench_trt.sh").encode()
        files["README.md"] = readme("README_trt.md", entries, target)
        return write_bundle(directory, files, entries, executable=("bench", "build.sh"))


def _raw_examples(artifacts: Artifacts, outputs: dict[str, np.ndarray]) -> dict[str, bytes]:
    """Inputs as trtexec reads them, expected logits as awk does: one number per line."""
    files = {}
    for index, image in enumerate(artifacts.inputs[:_CHECKED_IMAGES]):
        files[f"input_{index}.bin"] = np.ascontiguousarray(image, "<f4").tobytes()
        for precision, logits in outputs.items():
            lines = "\n".join(f"{value:.7g}" for value in logits[index])
            files[f"expected_{index}.{precision}.txt"] = f"{lines}\n".encode()
    return files


def _table(entries: dict[str, object]) -> str:
    """Precision, file, tolerance and input name, for a shell that cannot read JSON."""
    name = entries["input"]["name"]  # type: ignore[index]
    rows = entries["variants"]
    assert isinstance(rows, list)
    return "".join(f"{r['precision']} {r['file']} {r['tolerance']} {name}\n" for r in rows)
