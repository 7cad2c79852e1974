"""Fitting: a prior for a core family, and one device's own coefficients near it.

Time is a sum of non-negative coefficients times what each kind of work takes at peak. A family's
coefficients are fitted to the logarithm of all its rows; a device's own rows then move them by
non-negative least squares on relative errors, with a ridge to the family's: without it a kind of
layer that the rows do not show would cost nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Observation", "Prior", "fit_device", "fit_prior", "nonnegative_least_squares"]

# Where a family's fit begins, and whither it is pulled where rows say nothing: coefficients by
# kind of work, then the exponents of thread count, dot products and older releases.
_START = np.r_[np.log([0.6, 0.6, 1.5, 1.5, 3.0, 3.0, 1.5, 1.0, 1.0, 0.3]), 0.2, -0.4, 0.0]
_EXPONENTS = 3
_DAMPING = 1e-2
_STEPS = 30
# Rows further off than this count by their distance only: published tables hold slips.
_HUBER = 0.3
_PULL, _PULL_TO_FLOAT = 7e-4, 3e-3
# Few chips tell older releases from chips that are slow.
_PULL_TO_PRESENT = 5e-2
_TOGETHER = 0.3
_DEVICE_RIDGE = 0.3
_SWEEPS = 300


@dataclass(frozen=True)
class Observation:
    """One measured network.

    Attributes:
        row: Seconds at peak by kind of work.
        seconds: What was measured.
        threads: Cores used.
        dot: Whether int8 ran on dot-product instructions.
        chip: The chip, which fits weigh equally whatever number of rows it has.
        older: Whether it ran on eight-bit kernels of a release before the present ones.
    """

    row: np.ndarray
    seconds: float
    threads: int
    dot: bool
    chip: str
    older: bool = False


@dataclass(frozen=True)
class Prior:
    """Coefficients of a core family.

    Attributes:
        logarithms: Of the coefficients by kind of work, then exponents of threads, dot products and
            older releases.
    """

    logarithms: np.ndarray

    def coefficients(self, threads: int, dot: bool, older: bool = False) -> np.ndarray:
        """By kind of work, for so many threads."""
        scale = np.exp(self.logarithms[-_EXPONENTS:] @ _exponents(threads, dot, older))
        return np.asarray(np.exp(self.logarithms[:-_EXPONENTS]) * scale)


def fit_prior(rows: Sequence[Observation], floats: Prior | None = None, *, wide_apart: bool = True) -> Prior:
    """Fit a family by damped Gauss-Newton steps on logarithms.

    Args:
        rows: Of the family.
        floats: The same family's in floating point, where `rows` are of eight bits. Far fewer
            networks are published in eight bits: what their rows do not tell apart keeps the
            proportions it has in floating point; a factor common to all kinds of work is free.
        wide_apart: Whether 3x3 convolutions of many channels have a coefficient of their own.

    Raises:
        ValueError: If there are no rows.

    Examples:
        >>> rows = [Observation(np.full(10, size), 0.5 * size, 1, False, "chip") for size in (1.0, 2.0, 4.0)]
        >>> round(float(rows[1].row @ fit_prior(rows).coefficients(1, False)), 2)
        1.02
    """
    if not rows:
        raise ValueError("no rows")
    design = np.array([r.row for r in rows])
    target = np.log([r.seconds for r in rows])
    extra = np.array([_exponents(r.threads, r.dot, r.older) for r in rows])
    counts = Counter(r.chip for r in rows)
    weight = np.array([counts[r.chip] ** -0.5 for r in rows])
    weight /= weight.mean()
    kinds = design.shape[1]
    start, pull = _anchor(floats)
    if not wide_apart:
        difference = np.r_[1.0, -1.0, np.zeros(len(start) - 2)]
        pull += _TOGETHER * np.outer(difference, difference)
    theta, pull = start.copy(), pull * len(rows)
    for _ in range(_STEPS):
        parts = design * np.exp(theta[:kinds])
        total = parts.sum(1)
        residual = np.log(total) + extra @ theta[kinds:] - target
        jacobian = np.c_[parts / total[:, None], extra]
        trust = weight * np.minimum(1, _HUBER / np.maximum(np.abs(residual), 1e-9))
        curvature = jacobian.T @ (jacobian * trust[:, None]) + pull + _DAMPING * np.eye(len(theta))
        gradient = jacobian.T @ (trust * residual) + pull @ (theta - start)
        theta = theta - np.linalg.solve(curvature, gradient)
    return Prior(theta)


def _exponents(threads: int, dot: bool, older: bool) -> np.ndarray:
    return np.array([np.log(threads), float(dot), float(older)])


def _anchor(floats: Prior | None) -> tuple[np.ndarray, np.ndarray]:
    """Where a fit begins, and the quadratic form that holds it there."""
    start, pull = _START, _PULL * np.eye(len(_START))
    if floats is not None:
        start = np.r_[floats.logarithms[:-2], _START[-2:]]
        common = np.r_[np.ones(len(start) - _EXPONENTS), np.zeros(_EXPONENTS)]
        pull = _PULL_TO_FLOAT * (np.eye(len(start)) - np.outer(common, common) / common.sum())
    pull[-1, -1] = _PULL_TO_PRESENT
    return start, pull


def fit_device(rows: Sequence[Observation], base: np.ndarray) -> np.ndarray:
    """One device's coefficients: the family's scaled to its rows, then moved towards them.

    Args:
        rows: Of one device, runtime, precision and count of threads; may be a single one.
        base: The family's coefficients for that count of threads.

    Examples:
        >>> row = Observation(np.full(10, 2.0), 3.0, 1, False, "chip")
        >>> found = fit_device([row], np.full(10, 0.1))  # the family would take 2 s
        >>> round(float(row.row @ found), 2)
        3.0
    """
    ratios = [np.log(r.seconds / float(r.row @ base)) for r in rows]
    base = np.maximum(base * np.exp(np.median(ratios)), 1e-12)
    relative = np.array([r.row / r.seconds for r in rows]) * base
    ridge = np.sqrt(_DEVICE_RIDGE) * np.eye(len(base))
    target = np.r_[np.ones(len(rows)), np.sqrt(_DEVICE_RIDGE) * np.ones(len(base))]
    return np.asarray(base * nonnegative_least_squares(np.vstack([relative, ridge]), target))


def nonnegative_least_squares(matrix: np.ndarray, target: np.ndarray, sweeps: int = _SWEEPS) -> np.ndarray:
    """Minimise |matrix x - target| over x >= 0 by coordinate descent; columns must not be zero.

    Examples:
        >>> matrix = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> nonnegative_least_squares(matrix, np.array([2.0, -1.0, 1.0])).round(3)
        array([1.5, 0. ])
    """
    gram, moment = matrix.T @ matrix, matrix.T @ target
    x = np.ones(matrix.shape[1])
    for _ in range(sweeps):
        for j in range(len(x)):
            x[j] = max(0.0, x[j] - (gram[j] @ x - moment[j]) / gram[j, j])
    return x
