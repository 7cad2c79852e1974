"""Two artifacts measured in turn, in one process on one machine: their ratio holds where their times do not."""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from edgedafl.callbacks import OnMessage, silent
from edgedafl.devices import find_device, run_bundle
from edgedafl.errors import UsageError
from edgedafl.export import Artifacts, find_exporter
from edgedafl.graph.edit import fix_batch
from edgedafl.graph.image_input import find_image_input
from edgedafl.graph.load import load_onnx
from edgedafl.latency import BenchOptions, read_measurement
from edgedafl.runs import LatencySummary, RunDirectory
from edgedafl.stages.profile import host_target

__all__ = ["Slowdown", "measure_against"]

_NEW, _BASE = "new", "base"


@dataclass(frozen=True)
class Slowdown:
    """How much slower one artifact is than another.

    Attributes:
        new: Times of the first, in nanoseconds.
        base: Times of the one it is held against.
        median: Ratio of the medians, minus 1; negative where it is faster.
        low: Lower end: of the new median's interval over the upper end of the other's, minus 1.
        high: Upper end likewise.
        invalid: Why the figures must not be used; empty where nothing disturbed them.
    """

    new: LatencySummary
    base: LatencySummary
    median: float
    low: float
    high: float
    invalid: tuple[str, ...]


def measure_against(
    path: Path, base: Path, device: str = "local", options: BenchOptions | None = None, on_message: OnMessage = silent
) -> Slowdown:
    """Measure two runs' artifacts or two models in turn.

    Args:
        path: A run directory or an .onnx file.
        base: What it is held against.
        device: Where: `local`, a named device, `ssh://user@host` or `adb:SERIAL`.
        options: Of the measurement.
        on_message: Called with what happens on the device.

    Raises:
        UsageError: If one of them cannot be run by ONNX Runtime, or their images have different numbers of channels.
        MeasurementError: If the device or the measurement fails.

    Examples:
        >>> measure_against(Path("new.onnx"), Path("old.onnx")).median  # doctest: +SKIP
    """
    asked, target = options or BenchOptions(), host_target()
    models = {f"{_NEW}.fp32": _model(path), f"{_BASE}.fp32": _model(base)}
    with tempfile.TemporaryDirectory(prefix="edgedafl-against-") as folder:
        place = Path(folder)
        bundle = find_exporter("onnx").export(_artifacts(models), target, place / "bundle")
        result = place / "latency.json"
        with closing(find_device(device)) as there:
            run_bundle(there, bundle.directory, asked.arguments(), result, timeout=asked.timeout, on_message=on_message)
        found = read_measurement(result, device)
    new, old = (found.summaries[f"{name}.fp32"] for name in (_NEW, _BASE))
    return Slowdown(
        new,
        old,
        new.median / old.median - 1,
        new.median_low / old.median_high - 1,
        new.median_high / old.median_low - 1,
        found.invalid,
    )


def _model(path: Path) -> onnx.ModelProto:
    """A run's artifact as ONNX Runtime takes it, or a model file, at batch 1."""
    if not path.is_dir():
        return fix_batch(load_onnx(path).model, 1)
    run = RunDirectory(path)
    record = run.record()
    file = run.models(record.target.name) / f"{record.shipped}.onnx"
    if not file.is_file():
        raise UsageError(f"{str(path)!r} holds no {record.shipped} model.", "Run `edgedafl quantize` for it first.")
    return load_onnx(file).model


def _artifacts(models: dict[str, onnx.ModelProto]) -> Artifacts:
    shapes = {find_image_input(model).image_shape for model in models.values()}
    if len(shapes) != 1:
        found = " and ".join("x".join(str(side) for side in shape) for shape in sorted(shapes))
        raise UsageError(
            f"The two take images of different shapes: {found}.", "Compare models for the same images, one by one."
        )
    (shape,) = shapes
    images = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    unit = {"scale": [1.0] * shape[0], "offset": [0.0] * shape[0]}
    return Artifacts(models, next(iter(models)), "against", unit, images)
