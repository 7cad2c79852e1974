"""From signals to fidelity on real inputs: a small regression over pairs of which both are known.

`data/rows.json` holds teachers and students of which the real fidelity was measured on labelled test sets
(`python -m benchmarks.fidelity rows`); no row is of the teacher that a user compresses. The log odds of a
wrong answer are linear in those of a wrong answer on synthetic images, each image counted by the teacher's
margin. Tried besides: plain agreement, the logits' error, the number of classes and the share of weights that
is kept; none of them brought the median error down, and the number of classes misled for new teachers.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from edgedafl.fidelity.signals import KINDS, Signals
from edgedafl.runs import Band

__all__ = ["Predictor", "Row", "measured_band", "row_from_dict"]

_SMALLEST = 2e-3  # one wrong answer of the test sets' 500
_RESOLUTION = 1 / 300
"""Real fidelities are known on 300 test images: to one answer of them."""
_WHOLE = "whole"
_RIDGE = 0.3
# Few rows, and none of a teacher that integers spoil as they are made now: the mean counts for much.
_RIDGE_OF_WHOLE = 3.0
_COVERED = 0.9
_CAUTIOUS = 0.15
# Teachers of more classes than this many times those of all rows are another world.
_MORE_CLASSES = 30
_Z = 1.645  # 90 % of a normal distribution, both sides


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

    There is one regression for teachers in other numbers, which err by rounding alone, and one each for cut
    students of grey and of colour teachers: synthetic images look more like digits than like photographs. What fewer
    bits than eight cost is told from what eight do.

    Args:
        rows: Pairs of which the fidelity is known; of at least two teachers for what is to be predicted.

    Examples:
        >>> from edgedafl.fidelity.signals import Comparison, Signals
        >>> seen = Comparison(agreement=0.97, weighted=0.99, error=0.01)
        >>> signals = Signals({"natural": seen, "mixture": seen}, classes=10, colour=True, whole=True)
        >>> band = Predictor.shipped().predict(signals)
        >>> band.low < band.fidelity < band.high
        True
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        few = [row for row in rows if row.signals.eight_bits is not None]
        rest = [row for row in rows if row.signals.eight_bits is None]
        kinds = {_kind(row.signals) for row in rest}
        self._models = {kind: _Fitted([row for row in rest if _kind(row.signals) == kind]) for kind in kinds}
        whole = [row for row in rest if row.signals.whole]
        colours = {row.signals.colour for row in few} if _WHOLE in self._models else set()
        self._fewer_bits = {
            colour: _FewerBits(whole, [row for row in few if row.signals.colour == colour]) for colour in colours
        }
        self._most = max(row.signals.classes for row in rows)

    @classmethod
    @functools.cache
    def shipped(cls) -> Predictor:
        """With the rows that come with the package."""
        text = resources.files("edgedafl.fidelity").joinpath("data", "rows.json").read_text("utf-8")
        return cls([row_from_dict(entry) for entry in json.loads(text)["rows"]])

    def predict(self, signals: Signals) -> Band | None:
        """Fidelity with its band; None where nothing alike is known."""
        fewer = self._fewer_bits.get(signals.colour) if signals.eight_bits is not None else None
        model = fewer or self._models.get(_kind(signals))
        if model is None or not model.teachers or signals.classes > _MORE_CLASSES * self._most:
            return None
        return model.predict(signals)


class _Fitted:
    """One regression with the spread of its errors on teachers that were left out."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._x = np.array([_features(row.signals) for row in rows])
        self._y = np.array([_odds(1 - row.fidelity) for row in rows])
        names = np.array([row.teacher for row in rows])
        # Every teacher counts alike, however many of its students are known.
        counts = {name: int((names == name).sum()) for name in set(names.tolist())}
        self.teachers = len(counts) if len(counts) > 1 else 0
        self._weights = np.array([1 / counts[name] for name in names.tolist()])
        self._ridge = _RIDGE_OF_WHOLE if rows[0].signals.whole else _RIDGE
        self._model = _Regression(self._x, self._y, self._weights, self._ridge)
        spread = self._spread(names) if self.teachers else (np.zeros(1), np.ones(1))
        self._errors: np.ndarray = spread[0]
        self._shares: np.ndarray = spread[1]

    def predict(self, signals: Signals) -> Band:
        # What looks better or worse than anything known is not taken to be so.
        x = np.clip(_features(signals), self._x.min(0), self._x.max(0))
        return _band(float(self._model(x[None])[0]), self._quantile)

    def middle(self, features: Sequence[float]) -> float:
        """Log odds of a wrong answer."""
        return float(self._model(np.array([features]))[0])

    def _quantile(self, share: float) -> float:
        """Of the errors, in log odds of a wrong answer."""
        return float(self._errors[min(len(self._errors) - 1, int(np.searchsorted(self._shares, share)))])

    def _spread(self, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        errors, weights = [], []
        for name in sorted(set(names.tolist())):
            out = names == name
            model = _Regression(self._x[~out], self._y[~out], self._weights[~out], self._ridge)
            errors += (self._y[out] - model(self._x[out])).tolist()
            weights += self._weights[out].tolist()
        order = np.argsort(errors)
        sums = np.cumsum(np.array(weights)[order])
        return np.array(errors)[order], sums / sums[-1]


class _FewerBits:
    """Teachers whose weights take fewer bits than eight: by how much the error grows, from what eight bits are told.

    Args:
        whole: Rows of teachers in eight bits.
        few: Rows of such teachers in fewer, of one colour.
    """

    def __init__(self, whole: Sequence[Row], few: Sequence[Row]) -> None:
        names = sorted({row.teacher for row in few})
        self.teachers = len(names) if len(names) > 1 else 0
        self._eight, self._slope = _Fitted(whole), _slope(whole, few)
        errors = []
        for name in names if self.teachers else ():
            eight = _Fitted([row for row in whole if row.teacher != name])
            slope = _slope(whole, [row for row in few if row.teacher != name])
            mine = [row for row in few if row.teacher == name]
            errors += [_odds(1 - row.fidelity) - _from_eight_bits(eight, slope, row.signals) for row in mine]
        self._errors = np.array(errors or [0.0])

    def predict(self, signals: Signals) -> Band:
        middle = _from_eight_bits(self._eight, self._slope, signals)
        return _band(middle, self._quantile)

    def _quantile(self, share: float) -> float:
        """Of the errors, in log odds of a wrong answer; few rows do not say that all teachers err on one side."""
        found = float(np.quantile(self._errors, share))
        return max(found, 0.0) if share > 0.5 else min(found, 0.0)


def _from_eight_bits(eight: _Fitted, slope: float, signals: Signals) -> float:
    base = signals.eight_bits or signals.mean_error
    return eight.middle([math.log(base)]) + slope * max(0.0, math.log(signals.mean_error / base))


def _slope(whole: Sequence[Row], few: Sequence[Row]) -> float:
    """Log odds of a wrong answer over the logarithm of the error, each teacher about its own mean."""
    products = squares = 0.0
    for name in {row.teacher for row in few}:
        mine = [row for row in few if row.teacher == name]
        eight = min(
            (row for row in whole if row.teacher == name),
            key=lambda row: abs(row.signals.mean_error - (mine[0].signals.eight_bits or 0.0)),
        )
        x, y = (
            np.array(values) - np.mean(values)
            for values in (
                [math.log(row.signals.mean_error) for row in [eight, *mine]],
                [_odds(1 - row.fidelity) for row in [eight, *mine]],
            )
        )
        products, squares = products + float(x @ y), squares + float(x @ x)
    return max(0.0, products / max(squares, 1e-12))


class _Regression:
    """Ridge regression on standardized features, rows weighted; no feature may count the wrong way."""

    def __init__(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray, ridge: float) -> None:
        share = weights / weights.sum()
        self._mean = share @ x
        self._scale = np.sqrt(share @ (x - self._mean) ** 2) + 1e-6
        self._offset = float(share @ y)
        z = (x - self._mean) / self._scale
        self._slopes = np.zeros(x.shape[1])
        used = list(range(x.shape[1]))
        while used:
            own = z[:, used]
            gram = (own * weights[:, None]).T @ own + ridge * np.eye(len(used))
            found = np.linalg.solve(gram, (own * weights[:, None]).T @ (y - self._offset))
            if (found >= 0).all():
                self._slopes[used] = found
                break
            used.pop(int(np.argmin(found)))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._offset + (x - self._mean) / self._scale @ self._slopes
        return found


def measured_band(same: int, images: int, kind: str) -> Band:
    """A measured share with its 90 % band (Wilson's interval).

    Args:
        same: Images on which both give the same class.
        images: Images asked about, at least 1.
        kind: What they are, see `Band`.

    Examples:
        >>> band = measured_band(95, 100, "measured")
        >>> round(band.low, 3), band.fidelity, round(band.high, 3)
        (0.901, 0.95, 0.975)
    """
    share = same / images
    centre = (share + _Z**2 / (2 * images)) / (1 + _Z**2 / images)
    half = _Z * math.sqrt(share * (1 - share) / images + _Z**2 / (4 * images**2)) / (1 + _Z**2 / images)
    return Band(share, max(0.0, centre - half), min(1.0, centre + half), share, kind, images)


def row_from_dict(entry: dict[str, Any]) -> Row:
    """A row as `benchmarks.fidelity rows` writes it.

    Examples:
        >>> seen = {"agreement": 0.9, "weighted": 0.95, "error": 0.1}
        >>> signals = {"natural": seen, "mixture": seen, "classes": 10, "colour": True, "whole": False}
        >>> row_from_dict({"teacher": "mine", "student": "kept:0.5", "fidelity": 0.93, "signals": signals}).fidelity
        0.93
    """
    return Row(entry["teacher"], entry["student"], Signals.from_dict(entry["signals"]), float(entry["fidelity"]))


def _kind(signals: Signals) -> str:
    if signals.whole:
        return _WHOLE
    return "colour" if signals.colour else "grey"


def _features(signals: Signals) -> list[float]:
    if signals.whole:
        return [math.log(signals.mean_error)]
    return [_odds(1 - signals.comparisons[kind].weighted) for kind in KINDS]


def _band(middle: float, quantile: Callable[[float], float]) -> Band:
    """From log odds of a wrong answer, and quantiles of their errors."""
    tail = (1 - _COVERED) / 2
    low, high, cautious = (_fidelity(middle + quantile(q)) for q in (1 - tail, tail, 1 - _CAUTIOUS))
    return Band(_fidelity(middle), max(0.0, low - _RESOLUTION), min(1.0, high + _RESOLUTION), cautious)


def _odds(share: float) -> float:
    share = min(max(share, _SMALLEST), 1 - _SMALLEST)
    return math.log(share / (1 - share))


def _fidelity(odds: float) -> float:
    return 1 - 1 / (1 + math.exp(-odds))
