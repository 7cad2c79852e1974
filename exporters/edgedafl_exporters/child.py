"""Exporters whose runtime is imported in a process of its own: it registers operators and writes to the terminal."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from edgedafl.errors import EnvironmentMissingError
from edgedafl.export import Artifacts, Bundle
from edgedafl.targets import Target
from edgedafl_exporters.contents import CpuExporter, compose

__all__ = ["ChildExporter", "Made", "StepError"]

_SECONDS = 900


@dataclass(frozen=True)
class Made:
    """A model in the runtime's own form.

    Attributes:
        blob: Its file.
        scores: What it answers to the example images.
        facts: What is known of it.
    """

    blob: bytes
    scores: np.ndarray
    facts: dict[str, object] = field(default_factory=dict)


class StepError(Exception):
    """A step of a child process failed; its text is the reason that the runtime gave."""


class ChildExporter(CpuExporter):
    """Runs the steps of a module `python -m edgedafl_exporters.<steps> COMMAND ...`.

    Attributes:
        name: Of the exporter, and of its runtime in manifests.
        title: Of the runtime, for messages.
        steps: Name of the module.
        extra: Of the package that installs it.
        packages: What has to be installed to run a model.
        builders: What has to be installed beside them to make one.
    """

    name: str
    title: str
    steps: str
    extra: str
    packages: tuple[str, ...]
    builders: tuple[str, ...] = ()

    def ship(
        self,
        artifacts: Artifacts,
        target: Target,
        directory: Path,
        made: Mapping[str, Made],
        *,
        suffix: str,
        card: Mapping[str, str],
        changes: dict[str, object],
        files: Mapping[str, bytes] = MappingProxyType({}),
    ) -> Bundle:
        """Write the bundle of what was made.

        Args:
            artifacts: What there was to ship.
            target: For what.
            directory: Where to.
            made: Models by precision, fp32 among them.
            suffix: Of their files, e.g. `tflite`.
            card: What the model card says beside the student's own lines.
            changes: Manifest entries that differ from the target's.
            files: Further files by name.
        """
        variants = {precision: f"model.{precision}.{suffix}" for precision in made}
        primary = artifacts.primary if artifacts.primary in made else "fp32"
        # What is known of the ONNX int8 model does not hold for this one.
        known = {k: v for k, v in artifacts.agreements.items() if k != "int8"}
        return compose(
            replace(artifacts, primary=primary, agreements=known, card={**artifacts.card, **card}),
            target,
            directory,
            exporter=self.name,
            variants=variants,
            files={**{variants[precision]: model.blob for precision, model in made.items()}, **files},
            outputs={precision: model.scores for precision, model in made.items()},
            run=self.executables(),
            changes={"runtime": self.name, **changes},
        )

    def predict(self, file: Path, images: np.ndarray) -> np.ndarray:
        """Scores of a shipped file, from its own runtime.

        Raises:
            EnvironmentMissingError: If the runtime is not installed, or refuses the file.
        """
        with tempfile.TemporaryDirectory() as folder:
            given, found = Path(folder) / "images.npy", Path(folder) / "scores.npy"
            np.save(given, images)
            try:
                self.step("answer", str(file), str(given), str(found))
            except StepError as error:
                raise EnvironmentMissingError(
                    f"{self.title} failed to run {file.name}: {error}", "Use `--exporter onnx`."
                ) from error
            scores: np.ndarray = np.load(found)
            return scores

    def step(self, command: str, *arguments: str) -> None:
        """Run one step.

        Raises:
            EnvironmentMissingError: If something that it needs is not installed.
            StepError: If it fails.
        """
        needed = (*self.packages, *(self.builders if command == "build" else ()))
        if any(importlib.util.find_spec(package) is None for package in needed):
            raise EnvironmentMissingError(f"{self.title} is not installed.", f"pip install 'edgedafl[{self.extra}]'")
        line = [sys.executable, "-m", f"edgedafl_exporters.{self.steps}", command, *arguments]
        quiet = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=_SECONDS, env={**os.environ, **quiet}, check=False
        )
        if done.returncode:
            lines = [text.strip() for text in done.stderr.splitlines() if text.strip()] or ["no reason given"]
            raise StepError(next((text for text in reversed(lines) if "rror" in text), lines[-1])[:300])
