"""From signals to fidelity on real inputs: a small regression over pairs of which both are known.

`data/rows.json` holds teachers and students of which the real fidelity was measured on labelled test sets
(`python -m benchmarks.fidelity rows`); no row is of the teacher that a user compresses. The logarithm of
the odds of a wrong answer is linear in the logarithms of what was seen.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from edgedafl.fidelity.signals import KINDS, Signals

__all__ = ["Band", "Predictor", "Row", "measured_band", "row_from_dict"]

_SMALLEST = 2e-3  # one wrong answer of the test sets' 500
_RIDGE = 1.0
_COVERED = 0.9
# Signals that lie further outside all rows than this share of the rows' own span are refused.
_BEYOND = 0.25
_Z = 1.645  # 90 % of a normal distribution, both sides


@dataclass(frozen=True)
class Band:
    """A fidelity with its 90 % band, all in [0, 1].

    Attributes:
        fidelity: The figure.
        low: Lower end.
        high: Upper end.
        kind: `predicted`, `measured on your pictures`, or `measured on labelled images`.
        images: On how many images it was measured; 0 for predictions.
    """

    fidelity: float
    low: float
    high: float
    kind: str = "predicted"
    images: int = 0

    def to_dict(self) -> dict[str, Any]:
        """A JSON form."""
        return dict(vars(self))


@dataclass(frozen=True)
class Row:
    """One student whose real fidelity is known.

    Attributes:
        teacher: Of whom.
        student: What it is.
        signals: Seen without data.
        fidelity: On real images, in [0, 1].
    """

    teacher: str
    student: str
    signals: Signals
    fidelity: float


class Predictor:
    """Predicts fidelity from signals.

    Args:
        rows: Pairs of which the fidelity is known; of at least two teachers.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._x = np.array([_features(row.signals) for row in rows])
        self._y = np.array([_odds(1 - row.fidelity) for row in rows])
        teachers = np.array([row.teacher for row in rows])
        # Every teacher counts alike, however many of its students are known.
        counts = {name: int((teachers == name).sum()) for name in set(teachers.tolist())}
        self._weights = np.array([1 / counts[name] for name in teachers.tolist()])
        self._model = _Regression(self._x, self._y, self._weights)
        self._low, self._high = self._spread(teachers)

    @classmethod
    @functools.cache
    def shipped(cls) -> Predictor:
        """With the rows that come with the package."""
        text = resources.files("edgedafl.fidelity").joinpath("data", "rows.json").read_text("utf-8")
        return cls([row_from_dict(entry) for entry in json.loads(text)["rows"]])

    def predict(self, signals: Signals) -> Band | None:
        """Fidelity with its band; None where the signals lie far outside everything known."""
        x = np.array(_features(signals))
        span = self._x.max(0) - self._x.min(0)
        if (x < self._x.min(0) - _BEYOND * span).any() or (x > self._x.max(0) + _BEYOND * span).any():
            return None
        middle = float(self._model(x[None])[0])
        low, high = middle + self._high, middle + self._low
        return Band(_fidelity(middle), _fidelity(low), _fidelity(high))

    def _spread(self, teachers: np.ndarray) -> tuple[float, float]:
        """Ends of the errors' 90 % for teachers that were left out, in log odds."""
        errors, weights = [], []
        for name in sorted(set(teachers.tolist())):
            out = teachers == name
            model = _Regression(self._x[~out], self._y[~out], self._weights[~out])
            errors += (self._y[out] - model(self._x[out])).tolist()
            weights += self._weights[out].tolist()
        order = np.argsort(errors)
        sums = np.cumsum(np.array(weights)[order])
        sums /= sums[-1]
        tail = (1 - _COVERED) / 2
        sorted_errors = np.array(errors)[order]
        return (
            float(sorted_errors[np.searchsorted(sums, tail)]),
            float(sorted_errors[min(len(order) - 1, int(np.searchsorted(sums, 1 - tail)))]),
        )


class _Regression:
    """Ridge regression on standardized features, rows weighted."""

    def __init__(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> None:
        share = weights / weights.sum()
        self._mean = share @ x
        self._scale = np.sqrt(share @ (x - self._mean) ** 2) + 1e-6
        self._offset = float(share @ y)
        z = (x - self._mean) / self._scale
        gram = (z * weights[:, None]).T @ z + _RIDGE * np.eye(x.shape[1])
        self._slopes = np.linalg.solve(gram, (z * weights[:, None]).T @ (y - self._offset))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._offset + (x - self._mean) / self._scale @ self._slopes
        return found


def measured_band(same: int, images: int, kind: str) -> Band:
    """A measured share with its 90 % band (Wilson's interval).

    Args:
        same: Images on which both give the same class.
        images: Images asked about, at least 1.
        kind: What they are, see `Band`.
    """
    share = same / images
    centre = (share + _Z**2 / (2 * images)) / (1 + _Z**2 / images)
    half = _Z * math.sqrt(share * (1 - share) / images + _Z**2 / (4 * images**2)) / (1 + _Z**2 / images)
    return Band(share, max(0.0, centre - half), min(1.0, centre + half), kind, images)


def row_from_dict(entry: dict[str, Any]) -> Row:
    """A row as `benchmarks.fidelity rows` writes it."""
    return Row(entry["teacher"], entry["student"], Signals.from_dict(entry["signals"]), float(entry["fidelity"]))


def _features(signals: Signals) -> list[float]:
    found = []
    for kind in KINDS:
        comparison = signals.comparisons[kind]
        found += [
            _odds(1 - comparison.weighted),
            _odds(1 - comparison.agreement),
            math.log(min(max(comparison.error, 1e-5), 10.0)),
        ]
    return [*found, math.log(signals.classes)]


def _odds(share: float) -> float:
    share = min(max(share, _SMALLEST), 1 - _SMALLEST)
    return math.log(share / (1 - share))


def _fidelity(odds: float) -> float:
    return 1 - 1 / (1 + math.exp(-odds))
