"""Estimates from published rows: how good one can be depends on how near the rows are.

Tiers: A, fifteen or more rows of the very device, runtime and precision; B, one to fourteen of
them, or for eight bits its rows in floating point; C, rows of the same runtime on chips of the same
core family; D, anything further away: another runtime, another GPU generation. Runtimes differ by a
factor of two on one chip, so they are never pooled.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from edgedafl.errors import UsageError
from edgedafl.latency.estimator.fit import Prior, fit_device, fit_prior
from edgedafl.latency.estimator.processors import GPU, ProcessorSpec
from edgedafl.latency.estimator.rows import Row
from edgedafl.latency.estimator.work import seconds_at_peak

__all__ = ["Prediction", "Published", "band_of"]

_ENOUGH_FOR_A = 15
# A family's prior needs as many rows, from as many chips, before it says something of another chip.
_PRIOR_ROWS, _PRIOR_CHIPS = 20, 2
_BASE_RUNTIME = {GPU: "TensorRT"}
_USUAL_RUNTIME = "ncnn"  # the one with rows of all core families
_WIDEST = 3.0
# A kind of layer with this share of the multiply-accumulates must occur in the rows it rests on.
_UNSEEN_SHARE = 0.2
_MACS = 6
_FLOATS = ("fp32", "fp16")


@dataclass(frozen=True)
class Prediction:
    """An estimate and how far to trust it.

    Attributes:
        seconds: Per image.
        band: The truth lies within this factor in nine of ten cases.
        tier: A to D.
        basis: What it rests on.
    """

    seconds: float
    band: float
    tier: str
    basis: str


@dataclass(frozen=True)
class _Nearest:
    """The family's coefficients that an estimate begins with, whose they are and how near."""

    prior: Prior
    runtime: str
    tier: str
    factor: float


@functools.cache
def _bands() -> dict[str, float]:
    text = resources.files("edgedafl.latency.data").joinpath("bands.json").read_text("utf-8")
    found: dict[str, float] = json.loads(text)["bands"]
    return found


def band_of(family: str, precision: str, tier: str, *, by_floats: bool = False) -> float:
    """The factor measured by leaving out chip and network; the widest where none was measured.

    Args:
        family: Core family.
        precision: Of the estimate.
        tier: A to D.
        by_floats: Whether an estimate for eight bits rests on floating-point rows alone.

    Examples:
        >>> band_of("A72", "fp32", "A") < band_of("A72", "fp32", "C")
        True
    """
    key, known = f"{family} {precision} {tier}", _bands()
    measured = known.get(f"{key} by floats" if by_floats else key, known.get(key, _WIDEST))
    return max(measured, _WIDEST) if tier == "D" else measured


class Published:
    """A collection of rows that estimates rest on.

    Args:
        rows: Published measurements.

    Examples:
        >>> from edgedafl.latency.estimator.rows import packaged_rows
        >>> Published(packaged_rows()) is not None
        True
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._priors: dict[tuple[str, str, str, str, str], Prior | None] = {}
        self._works: dict[tuple[str, str], np.ndarray] = {}

    def predict(
        self,
        work: np.ndarray,
        place: ProcessorSpec,
        precision: str,
        runtime: str,
        *,
        own: Sequence[Row] = (),
        related: Sequence[Row] = (),
        floats: Sequence[Row] = (),
        older: bool = False,
        leave_out: tuple[str, str] = ("", ""),
    ) -> Prediction:
        """Estimate one network.

        Args:
            work: Sums of the network.
            place: Where it will run.
            precision: `fp32`, `fp16` or `int8`.
            runtime: As published tables name it.
            own: Rows of the very device, runtime and precision.
            related: Rows of related chips instead, where there are none of its own.
            floats: For eight bits: rows of the very device and runtime in one floating-point
                precision; how it differs from its family shows in them too.
            older: Whether a release before the runtime's present eight-bit kernels is meant; where
                rows of the device are given, theirs is.
            leave_out: Chip and architecture whose rows the prior must not see; for hold-outs.

        Raises:
            UsageError: If nothing published is near enough.
        """
        nearest = self._nearest(place, precision, runtime, leave_out)
        older = older or any(row.older for row in (*own, *related))
        family = nearest.prior.coefficients(place.threads, place.dot, older)
        tier, coefficients = nearest.tier, nearest.factor * family
        bend = self._device_correction(floats, leave_out) if precision == "int8" and tier == "C" else None
        if bend is not None:
            coefficients = coefficients * bend
        if own or related:
            coefficients = fit_device([r.observation() for r in own or related], coefficients)
        if own:
            tier = "A" if len(own) >= _ENOUGH_FOR_A else "B"
            basis = f"{len(own)} published rows of this device with {runtime}"
        elif related:
            basis = f"{len(related)} published rows of related chips with {runtime}"
        elif bend is not None:
            tier, basis = "B", f"{len(floats)} published {floats[0].precision} rows of this device with {runtime}"
        else:
            basis = f"published {nearest.runtime} rows of other chips with {place.family} cores"
        by_floats = bend is not None and not own and not related
        band = band_of(place.family, precision, tier, by_floats=by_floats)
        if self._unseen(work, nearest.runtime, place.family):
            band, tier = max(band, _WIDEST), "D"
            basis += "; a kind of layer with much of the work does not occur in them"
        seconds = float(seconds_at_peak(work, place, precision) @ coefficients)
        return Prediction(seconds, band, tier, basis)

    def _nearest(self, place: ProcessorSpec, precision: str, runtime: str, leave_out: tuple[str, str]) -> _Nearest:
        """The prior of the runtime itself, or the usual one's, scaled by what is known of both."""
        base = _BASE_RUNTIME.get(place.family, runtime)
        prior = self._prior(base, place.family, precision, leave_out)
        if prior is not None:
            # Generations of GPUs and of TensorRT do not scale into each other.
            return _Nearest(prior, base, "D" if place.family == GPU else "C", 1.0)
        found = (self._prior(_USUAL_RUNTIME, place.family, p, leave_out) for p in (precision, *_FLOATS))
        prior = next((p for p in found if p is not None), None)
        if prior is None:
            raise UsageError(
                f"No published row is near enough to estimate {precision} with {runtime} on {place.chip}.",
                "Measure it: edgedafl profile RUN --device ssh://user@host.",
            )
        return _Nearest(prior, _USUAL_RUNTIME, "D", self._runtime_factor(prior, runtime, place.family))

    def _prior(self, runtime: str, family: str, precision: str, leave_out: tuple[str, str]) -> Prior | None:
        key = (runtime, family, precision, *leave_out)
        if key not in self._priors:
            chip, architecture = leave_out
            rows = [
                row
                for row in self._rows
                if row.runtime.startswith(runtime)
                and row.place.family == family
                and (row.precision == precision or family == GPU)
                and row.place.chip != chip
                and row.architecture != architecture
            ]
            # Few rows of GPUs are public: peaks per precision make them comparable.
            chips = 1 if family == GPU else _PRIOR_CHIPS
            enough = len(rows) >= _PRIOR_ROWS and len({row.place.chip for row in rows}) >= chips
            floats = None
            if enough and precision == "int8" and family != GPU:
                found = (self._prior(runtime, family, name, leave_out) for name in _FLOATS)
                floats = next((prior for prior in found if prior is not None), None)
            seen = [row.observation() for row in rows]
            self._priors[key] = fit_prior(seen, floats, wide_apart=family != GPU) if enough else None
        return self._priors[key]

    def _device_correction(self, floats: Sequence[Row], leave_out: tuple[str, str]) -> np.ndarray | None:
        """By what factors a device's coefficients in floating point differ from its family's."""
        if not floats:
            return None
        first = floats[0]
        prior = self._prior(first.runtime, first.place.family, first.precision, leave_out)
        if prior is None:
            return None
        family = prior.coefficients(first.place.threads, first.place.dot, first.older)
        return np.asarray(fit_device([r.observation() for r in floats], family) / family)

    def _runtime_factor(self, prior: Prior, runtime: str, family: str) -> float:
        """How much slower a runtime is than the one the prior is of, by the few rows there are."""
        ratios = []
        for row in self._rows:
            if row.runtime == runtime and row.place.family == family:
                seen = row.observation()
                expected = seen.row @ prior.coefficients(seen.threads, seen.dot, seen.older)
                ratios.append(np.log(seen.seconds / expected))
        return float(np.exp(np.median(ratios))) if ratios else 1.0

    def _unseen(self, work: np.ndarray, runtime: str, family: str) -> bool:
        total = work[:_MACS].sum()
        if not total:
            return False
        return bool(((work[:_MACS] / total > _UNSEEN_SHARE) & (self._shown(runtime, family) == 0)).any())

    def _shown(self, runtime: str, family: str) -> np.ndarray:
        """Multiply-accumulates by kind of layer in the rows of a runtime and a family."""
        key = (runtime, family)
        if key not in self._works:
            rows = [r for r in self._rows if r.runtime.startswith(runtime) and r.place.family == family]
            self._works[key] = sum((row.work[:_MACS] for row in rows), np.zeros(_MACS))
        return self._works[key]
