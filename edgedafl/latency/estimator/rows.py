"""Published measurements: the ones in the package, and any file of the same form."""

from __future__ import annotations

import functools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from edgedafl.errors import UsageError
from edgedafl.latency.estimator.fit import Observation
from edgedafl.latency.estimator.processors import ProcessorSpec, find_processor
from edgedafl.latency.estimator.work import KINDS, seconds_at_peak, work_of_table

__all__ = ["Row", "architectures", "mark_releases", "packaged_rows", "read_rows", "rows_of"]

_BACKENDS = {"cpu": "cpu", "gpu": "gpu"}
# ncnn's table names no release, but its benchmark has grown: a device for which most networks are
# listed and this one is not ran a release before it, with slower eight-bit kernels.
_NEWER = {"ncnn": "efficientnetv2_b0@224"}
_MOST = 10


@dataclass(frozen=True)
class Row:
    """One published latency.

    Attributes:
        runtime: As published, e.g. `ncnn`.
        device: Device, threads and power mode: rows alike in these are one set-up.
        architecture: Network and input side, e.g. `resnet18@224`.
        precision: `fp32`, `fp16` or `int8`.
        seconds: Per image at batch 1.
        place: Where it ran.
        work: Sums of the network.
        source: Where it was published.
        older: Whether it ran on eight-bit kernels of a release before the present ones.
    """

    runtime: str
    device: str
    architecture: str
    precision: str
    seconds: float
    place: ProcessorSpec
    work: np.ndarray
    source: str
    older: bool = False

    def observation(self) -> Observation:
        """As the fits take it."""
        row = seconds_at_peak(self.work, self.place, self.precision)
        return Observation(row, self.seconds, self.place.threads, self.place.dot, self.place.chip, self.older)

    @property
    def board(self) -> tuple[str, str]:
        """Runtime and device, whatever the threads and the power mode."""
        return self.runtime, self.device.rsplit(", ", 2)[0]

    @property
    def identity(self) -> tuple[str, str, str, str, float]:
        """By which the same measurement is known in two files."""
        return (self.runtime, self.device, self.architecture, self.precision, self.seconds)


@functools.cache
def architectures() -> dict[str, np.ndarray]:
    """Sums of the networks that published tables name.

    Examples:
        >>> len(architectures()) > 10
        True
    """
    text = resources.files("edgedafl.latency.data").joinpath("architectures.json").read_text("utf-8")
    return {name: np.array([values[kind] for kind in KINDS]) for name, values in json.loads(text).items()}


@functools.cache
def packaged_rows() -> tuple[Row, ...]:
    """The rows that travel with the package.

    Examples:
        >>> len(packaged_rows()) > 1_000
        True
    """
    text = resources.files("edgedafl.latency.data").joinpath("rows.json").read_text("utf-8")
    data = json.loads(text)
    columns = data["columns"]
    return mark_releases(rows_of(dict(zip(columns, values, strict=True)) for values in data["rows"]))


def read_rows(path: Path) -> tuple[Row, ...]:
    """Rows of a JSON file: a list of measurements, or an object with `measurements` and `models`.

    Raises:
        UsageError: If the file is missing or not of that form.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rows.json"
        >>> _ = path.write_text("[]")
        >>> read_rows(path)
        ()
    """
    try:
        data = json.loads(path.read_text("utf-8"))
        measurements = data["measurements"] if isinstance(data, dict) else data
        models = data.get("models", {}) if isinstance(data, dict) else {}
        given = {name: _table(model) for name, model in models.items() if "layers" in model}
        return mark_releases(rows_of(measurements, {**given, **architectures()}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{str(path)!r} is not a file of published rows: {error}.", "See benchmarks/estimator.py for its form."
        ) from error


def rows_of(
    measurements: Iterable[Mapping[str, Any]], networks: Mapping[str, np.ndarray] | None = None
) -> Iterable[Row]:
    """Rows whose chip and network are known, at batch 1, of CPUs and GPUs; others are passed over.

    Examples:
        >>> measured = {"soc": "BCM2711", "device": "Raspberry Pi 4", "arch": "no such network", "latency_ms": 50.0}
        >>> list(rows_of([measured]))
        []
    """
    known = architectures() if networks is None else networks
    for m in measurements:
        latency, precision = m.get("latency_ms"), str(m.get("precision"))
        backend = _BACKENDS.get(str(m.get("backend", "cpu")))
        work = known.get(str(m.get("arch")))
        if not isinstance(latency, int | float) or not math.isfinite(latency) or latency <= 0:
            continue
        if backend is None or work is None or m.get("batch") not in (1, None):
            continue
        names = (str(m.get("soc") or ""), str(m.get("device") or ""))
        threads, cores = m.get("threads"), str(m.get("power_mode") or "")
        place = find_processor(*names, precision=precision, threads=threads, cores=cores, backend=backend)
        if place is None:
            continue
        yield Row(
            runtime=str(m.get("runtime")),
            device=f"{names[1]}, {threads or 'all'} threads, {cores or 'usual mode'}",
            architecture=str(m["arch"]),
            precision=precision,
            seconds=float(latency) / 1e3,
            place=place,
            work=work,
            source=f"{m.get('source', '')} {m.get('source_path', '')}".strip(),
        )


def mark_releases(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The same rows, eight-bit ones of older releases marked; to be called again on rows of several files.

    Examples:
        >>> len(mark_releases(packaged_rows())) == len(packaged_rows())
        True
    """
    rows = tuple(rows)
    listed: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        listed[row.board].add(row.architecture)
    older = {
        board
        for board, names in listed.items()
        if board[0] in _NEWER and len(names) >= _MOST and _NEWER[board[0]] not in names
    }
    return tuple(replace(row, older=row.precision == "int8" and row.board in older) for row in rows)


def _table(model: Mapping[str, Any]) -> np.ndarray:
    columns = model["layers_columns"]
    return work_of_table(dict(zip(columns, layer, strict=False)) for layer in model["layers"])
