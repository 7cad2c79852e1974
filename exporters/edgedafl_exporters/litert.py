"""LiteRT (TensorFlow Lite): the .tflite files that Android apps and microcontrollers load.

Google's converter and quantizer make them; the weights are those that our rounding has left, and the ranges
come from our generated images.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgedafl.errors import EnvironmentMissingError, UnsupportedModelError
from edgedafl.export import Artifacts, Bundle
from edgedafl.graph.edit import fix_batch, model_bytes
from edgedafl.graph.parity import compare
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.targets import Target
from edgedafl_exporters.c_array import c_array_files
from edgedafl_exporters.contents import CpuExporter, compose

__all__ = ["LiteRtExporter"]

_LOG = logging.getLogger(__name__)
_SECONDS = 900
_RANGE = ">=2.0"
_PRECISIONS = ("fp32", "int8")
_FLOAT_ERROR = 1e-3
"""Relative error of the float file against ONNX Runtime; 1e-6 is usual."""
_IMAGES = 64
"""Calibration images: ranges are settled by then, and each takes an interpreter of its own."""


@dataclass(frozen=True)
class _Made:
    blob: bytes
    scores: np.ndarray
    facts: dict[str, Any]


class LiteRtExporter(CpuExporter):
    """A bundle of .tflite files, channels last, the int8 one with integers at both ends."""

    name = "litert"

    def export(self, artifacts: Artifacts, target: Target, directory: Path) -> Bundle:
        """Write the bundle.

        Raises:
            EnvironmentMissingError: If the converter is not installed.
            UnsupportedModelError: If it cannot take the network; its reason is in the message.
        """
        made, omitted = self._build(artifacts)
        variants = {precision: f"model.{precision}.tflite" for precision in made}
        primary = artifacts.primary if artifacts.primary in made else "fp32"
        known = {k: v for k, v in artifacts.agreements.items() if k != "int8"}  # of the ONNX model
        files = {variants[precision]: model.blob for precision, model in made.items()}
        if target.architecture == "cortex-m":
            files |= c_array_files(made[primary].blob, made[primary].facts["operators"])
        own = {
            **artifacts.card,
            "Conversion": f"LiteRT, ranges from {min(_IMAGES, len(artifacts.calibration))} generated images",
        }
        return compose(
            replace(artifacts, primary=primary, agreements=known, card=own),
            target,
            directory,
            exporter=self.name,
            variants=variants,
            files=files,
            outputs={precision: model.scores for precision, model in made.items()},
            run=self.executables(),
            changes={
                "runtime": "litert",
                "runtime_range": _RANGE,
                "omitted": omitted,
                "litert": {precision: model.facts for precision, model in made.items()},
            },
        )

    def _build(self, artifacts: Artifacts) -> tuple[dict[str, _Made], dict[str, str]]:
        """Models by precision, and why a precision is not among them."""
        made: dict[str, _Made] = {}
        omitted: dict[str, str] = {}
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            np.save(place / "calibration.npy", artifacts.calibration[:_IMAGES])
            for precision in _PRECISIONS:
                if precision not in artifacts.models:
                    continue
                (place / f"{precision}.onnx").write_bytes(model_bytes(fix_batch(artifacts.models[precision], 1)))
                try:
                    made[precision] = self._one(place, precision, artifacts)
                except UnsupportedModelError as error:
                    if precision == "fp32":
                        raise
                    _LOG.warning("%s is left out of the bundle. %s", precision, error.message)
                    omitted[precision] = error.message
        return made, omitted

    def _one(self, place: Path, precision: str, artifacts: Artifacts) -> _Made:
        file, facts = place / f"model.{precision}.tflite", place / "facts.json"
        _child("build", str(place), precision)
        _child("operators", str(file), str(facts))
        scores = self.predict(file, artifacts.inputs)
        if precision == "fp32":
            reference = run_batched(open_session(artifacts.models["fp32"]), artifacts.inputs, batch=1)
            error = compare(reference, scores).relative_error
            if error > _FLOAT_ERROR:
                raise UnsupportedModelError(
                    f"LiteRT's float model differs from ONNX Runtime by {error:.2g}.", "Use `--exporter onnx`."
                )
        return _Made(file.read_bytes(), scores, json.loads(facts.read_text()))

    def predict(self, file: Path, images: np.ndarray) -> np.ndarray:
        """Scores of a shipped file, from LiteRT's own interpreter."""
        with tempfile.TemporaryDirectory() as folder:
            given, found = Path(folder) / "images.npy", Path(folder) / "scores.npy"
            np.save(given, images)
            _child("answer", str(file), str(given), str(found))
            scores: np.ndarray = np.load(found)
            return scores


def _child(command: str, *arguments: str) -> None:
    """Run a step in a process of its own: the converter registers operators and writes to the terminal."""
    needed = ("ai_edge_litert",) if command != "build" else ("ai_edge_litert", "litert_torch", "ai_edge_quantizer")
    if any(importlib.util.find_spec(package) is None for package in needed):
        raise EnvironmentMissingError("LiteRT is not installed.", "pip install 'edgedafl[litert]'")
    line = [sys.executable, "-m", "edgedafl_exporters.litert_steps", command, *arguments]
    quiet = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=_SECONDS, env={**os.environ, **quiet}, check=False
    )
    if done.returncode:
        lines = [text for text in done.stderr.strip().splitlines() if text.strip()] or ["no reason given"]
        reason = next((text for text in reversed(lines) if "rror" in text), lines[-1]).strip()[:300]
        raise UnsupportedModelError(
            f"LiteRT failed to {command} the model: {reason}", "Use `--exporter onnx`, or `--exporter executorch`."
        )
