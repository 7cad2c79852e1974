"""Summaries of raw latency samples, and what may honestly be said from how many."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgedafl.runs import LatencySummary

__all__ = ["early_stopping_bound", "medians_of_parts", "ratio_of_medians", "summarize"]

# Samples below which a percentile is noise: MLPerf's early-stopping floors for one stream.
P90_FLOOR = 64
P99_FLOOR = 662
_RESAMPLES = 200
_RESAMPLED = 5000


def summarize(samples: list[int], calls: int = 1) -> LatencySummary:
    """Summarize raw nanoseconds in the order they were taken.

    Args:
        samples: One or more.
        calls: Of which each is a mean; of means of several, the slowest tenth is not known.

    Raises:
        ValueError: If there are no samples.

    Examples:
        >>> found = summarize([1_000_000, 1_100_000, 1_050_000])
        >>> found.median, found.p90  # three samples say nothing of the slowest tenth
        (1050000.0, None)
    """
    if not samples:
        raise ValueError("no samples")
    values = np.asarray(samples, np.float64)
    low, high = _median_interval(values)
    third = max(1, len(values) // 3)
    drift = float(np.median(values[-third:]) / np.median(values[:third]) - 1)
    return LatencySummary(
        count=len(values),
        minimum=float(values.min()),
        median=float(np.median(values)),
        p90=float(np.percentile(values, 90)) if calls == 1 and len(values) >= P90_FLOOR else None,
        p99=float(np.percentile(values, 99)) if calls == 1 and len(values) >= P99_FLOOR else None,
        mean=float(values.mean()),
        variation=float(values.std() / values.mean()),
        median_low=low,
        median_high=high,
        drift=drift,
    )


def medians_of_parts(raw: dict[str, Any], name: str) -> list[float]:
    """Medians in nanoseconds of the processes or passes that a device's `latency.json` tells apart.

    Examples:
        >>> raw = {"samples_ns": {"int8": [10, 12, 30, 32]}, "process_samples": {"int8": [2, 2]}}
        >>> medians_of_parts(raw, "int8")
        [11.0, 31.0]
    """
    samples, lengths = raw["samples_ns"][name], raw.get("process_samples", {}).get(name, [])
    if not lengths or sum(lengths) != len(samples):
        return [float(np.median(samples))]
    return [float(np.median(part)) for part in np.split(np.asarray(samples), np.cumsum(lengths)[:-1])]


def ratio_of_medians(slow: list[int], fast: list[int]) -> float:
    """How many times faster `fast` is, from samples that were taken in turn.

    Examples:
        >>> ratio_of_medians([40, 42, 41], [20, 21, 20])
        2.05
    """
    return float(np.median(slow) / np.median(fast))


def early_stopping_bound(samples: list[int], percentile: float, confidence: float = 0.99) -> float | None:
    """The latency that a percentile stays below with `confidence`: an order statistic.

    As MLPerf's early stopping: of n samples the t slowest may be discarded, where t is the largest
    number for which at most t of n exceed the percentile with a chance of 1 - confidence.

    Returns:
        Nanoseconds; None where there are too few samples (64 for 0.9, 662 for 0.99).

    Examples:
        >>> early_stopping_bound(list(range(1000)), 0.9)
        921.0
        >>> early_stopping_bound([1, 2, 3], 0.9) is None
        True
    """
    count, term, total, allowed = len(samples), percentile ** len(samples), 0.0, -1
    while total + term <= 1 - confidence:
        total, allowed = total + term, allowed + 1
        term *= (count - allowed) / (allowed + 1) * (1 - percentile) / percentile
    return float(sorted(samples)[count - allowed - 1]) if allowed >= 1 else None


def _median_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval; long runs are thinned evenly, which only widens it."""
    step = max(1, len(values) // _RESAMPLED)
    thin = values[::step]
    random = np.random.default_rng(0)
    medians = [np.median(thin[random.integers(0, len(thin), len(thin))]) for _ in range(_RESAMPLES)]
    return float(np.percentile(medians, 2.5)), float(np.percentile(medians, 97.5))
