"""Exporters whose runtime is imported in a process of its own: it registers operators and writes to the terminal."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgedafl.errors import EnvironmentMissingError
from edgedafl_exporters.contents import CpuExporter

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
        title: Of the runtime, for messages.
        steps: Name of the module.
        extra: Of the package that installs it.
        packages: What has to be installed to run a model.
        builders: What has to be installed beside them to make one.
    """

    title: str
    steps: str
    extra: str
    packages: tuple[str, ...]
    builders: tuple[str, ...] = ()

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
