"""ExecuTorch with XNNPACK: what Android and iOS apps link as a library.

ExecuTorch quantizes by its own rules, so its int8 model is made from the float student and the
generated calibration images, not from the ONNX one.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgedafl.errors import EnvironmentMissingError
from edgedafl.export import Artifacts, Bundle
from edgedafl.graph.edit import model_bytes
from edgedafl.targets import Target
from edgedafl_exporters.contents import CpuExporter, compose

__all__ = ["ExecuTorchExporter"]

_LOG = logging.getLogger(__name__)
_SECONDS = 900
_RANGE = ">=1.0"
_PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True)
class _Made:
    blob: bytes
    scores: np.ndarray


class ExecuTorchExporter(CpuExporter):
    """A bundle of .pte files; `bench` runs them with ExecuTorch's Python runtime."""

    name = "executorch"

    def export(self, artifacts: Artifacts, target: Target, directory: Path) -> Bundle:
        """Write the bundle.

        Where XNNPACK cannot take the int8 form of some layer, the bundle holds fp32 alone and its
        manifest says why.
        """
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            (place / "float.onnx").write_bytes(model_bytes(artifacts.models["fp32"]))
            np.save(place / "calibration.npy", artifacts.calibration)
            made, omitted = self._build(place, artifacts)
        variants = {precision: f"model.{precision}.pte" for precision in made}
        primary = artifacts.primary if artifacts.primary in made else "fp32"
        # What is known of the ONNX int8 model does not hold for this one.
        known = {k: v for k, v in artifacts.agreements.items() if k != "int8"}
        own = {
            **artifacts.card,
            "Quantization": f"XNNPACK's quantizer on {len(artifacts.calibration)} generated images",
        }
        return compose(
            replace(artifacts, primary=primary, agreements=known, card=own),
            target,
            directory,
            exporter=self.name,
            variants=variants,
            files={variants[precision]: model.blob for precision, model in made.items()},
            outputs={precision: model.scores for precision, model in made.items()},
            run=self.executables(),
            changes={
                "runtime": "executorch",
                "runtime_range": _RANGE,
                "omitted": omitted,
            },
        )

    def _build(self, place: Path, artifacts: Artifacts) -> tuple[dict[str, _Made], dict[str, str]]:
        """Models by precision, and why a precision is not among them."""
        made: dict[str, _Made] = {}
        omitted: dict[str, str] = {}
        for precision in _PRECISIONS:
            if precision != "fp32" and precision not in artifacts.models:
                continue
            file = place / f"model.{precision}.pte"
            try:
                _child("build", str(place), precision)
                made[precision] = _Made(file.read_bytes(), self.predict(file, artifacts.inputs))
            except EnvironmentMissingError as error:
                if precision == "fp32":
                    raise
                _LOG.warning("%s is left out of the bundle. %s", precision, error.message)
                omitted[precision] = error.message
        return made, omitted

    def predict(self, file: Path, images: np.ndarray) -> np.ndarray:
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
