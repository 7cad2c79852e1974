"""ExecuTorch with XNNPACK: what Android and iOS apps link as a library.

ExecuTorch quantizes by its own rules, so its int8 model is made from the float student and the
generated calibration images, not from the ONNX one.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgedafl.errors import EnvironmentMissingError
from edgedafl.export import Artifacts, Bundle
from edgedafl.graph.edit import model_bytes
from edgedafl.targets import Target
from edgedafl_exporters.contents import compose

__all__ = ["ExecuTorchExporter"]

_SECONDS = 900
_RANGE = ">=1.0"
_PRECISIONS = ("fp32", "int8")


class ExecuTorchExporter:
    """A bundle of .pte files; `bench` runs them with ExecuTorch's Python runtime."""

    name = "executorch"

    def export(self, artifacts: Artifacts, target: Target, directory: Path) -> Bundle:
        """Write the bundle."""
        wanted = [p for p in _PRECISIONS if p == "fp32" or p in artifacts.models]
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            (place / "float.onnx").write_bytes(model_bytes(artifacts.models["fp32"]))
            np.save(place / "calibration.npy", artifacts.calibration)
            _child("build", folder, *wanted)
            variants = {precision: f"model.{precision}.pte" for precision in wanted}
            files = {name: (place / name).read_bytes() for name in variants.values()}
            outputs = {p: self.answer(place / name, artifacts.inputs) for p, name in variants.items()}
        own = {
            **artifacts.card,
            "Quantization": f"XNNPACK's quantizer on {len(artifacts.calibration)} generated images",
        }
        return compose(
            # What is known of the ONNX int8 model does not hold for this one.
            replace(artifacts, agreements={k: v for k, v in artifacts.agreements.items() if k != "int8"}, card=own),
            target,
            directory,
            exporter=self.name,
            variants=variants,
            files=files,
            outputs=outputs,
            changes={
                "runtime": "executorch",
                "runtime_range": _RANGE,
                "precision": artifacts.primary if artifacts.primary in variants else "fp32",
                "primary": variants.get(artifacts.primary, variants["fp32"]),
            },
        )

    def answer(self, file: Path, images: np.ndarray) -> np.ndarray:
        """Scores of a shipped file, from ExecuTorch's own runtime."""
        with tempfile.TemporaryDirectory() as folder:
            given, found = Path(folder) / "images.npy", Path(folder) / "scores.npy"
            np.save(given, images)
            _child("answer", str(file), str(given), str(found))
            scores: np.ndarray = np.load(found)
            return scores


def _child(*arguments: str) -> None:
    """Run a step in a process of its own: ExecuTorch registers operators and writes to the terminal."""
    if importlib.util.find_spec("executorch") is None:
        raise EnvironmentMissingError("ExecuTorch is not installed.", "pip install 'edgedafl[executorch]'")
    command = [sys.executable, "-m", "edgedafl_exporters.executorch_steps", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, env=environment, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EnvironmentMissingError(
            f"ExecuTorch failed to {arguments[0]}: {reason}",
            "Use `--exporter onnx`, or another version of executorch (1.5 is known to work).",
        )
