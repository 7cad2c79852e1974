"""This machine as a device."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from edgedafl.errors import MeasurementError

__all__ = ["LocalDevice"]


class LocalDevice:
    """Runs a bundle in a temporary copy, in a process of its own."""

    name = "local"

    def run_bundle(self, bundle: Path, arguments: list[str], result: Path, *, timeout: float) -> None:
        """See `Device.run_bundle`."""
        with tempfile.TemporaryDirectory(prefix="edgedafl-") as folder:
            place = Path(folder) / bundle.name
            shutil.copytree(bundle, place)
            bench = place / "bench"
            # The same interpreter, so that the bundle finds the ONNX Runtime installed here.
            python = bench.read_bytes().startswith(b"#!/usr/bin/env python3")
            command = [sys.executable, str(bench)] if python else [str(bench)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            try:
                done = subprocess.run(
                    [*command, *arguments, "--output", str(place / "latency.json")],
                    capture_output=True, text=True, timeout=timeout, check=False, env=environment,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise MeasurementError(f"bench did not end within {timeout:.0f} s on this machine.") from error
            written = place / "latency.json"
            if not written.is_file():
                reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["no reason given"]
                raise MeasurementError(
                    f"bench failed on this machine (exit {done.returncode}): {reason[0]}",
                    f"Run {bundle / 'bench'} by hand to see more.",
                )
            result.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(written, result)
