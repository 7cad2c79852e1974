"""Finished trials, and which of them nothing beats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from edgedafl.units import format_bytes, format_duration

__all__ = ["Trial", "front_rows", "pareto_front"]


@dataclass(frozen=True)
class Trial:
    """One finished run of a sweep.

    Attributes:
        student: Its student.
        target: The target's name.
        seed: Its seed.
        agreement: Synthetic agreement of the artifact, in [0, 1].
        size: Bytes of the artifact.
        latency: Seconds per image, estimated for the target.
        directory: The run directory.
        front: Whether no other trial for its target is at least as good in all three.
    """

    student: str
    target: str
    seed: int
    agreement: float
    size: int
    latency: float
    directory: str
    front: bool = False


def pareto_front(trials: Iterable[Trial]) -> list[Trial]:
    """The trials with `front` set where none for the same target beats them.

    One trial beats another when it is nowhere worse and somewhere better in agreement, size and
    latency.

    Examples:
        >>> trials = [
        ...     Trial("kept:0.5", "rpi4", 0, 0.97, 90_000, 0.002, "a", False),
        ...     Trial("kept:0.6", "rpi4", 0, 0.96, 99_000, 0.003, "b", False)]
        >>> [trial.front for trial in pareto_front(trials)]
        [True, False]
    """
    found = list(trials)
    return [replace(t, front=not any(_beats(o, t) for o in found)) for t in found]


def _beats(other: Trial, trial: Trial) -> bool:
    if other.target != trial.target:
        return False
    pairs = (
        (other.agreement, trial.agreement),
        (-other.size, -trial.size),
        (-other.latency, -trial.latency),
    )
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def front_rows(trials: Sequence[Trial]) -> list[list[str]]:
    """A table: student, target, seed, agreement, size, latency, on the front or not.

    Examples:
        >>> front_rows([Trial("kept:0.5", "rpi4", 0, 0.97, 90_000, 0.002, "a", True)])
        [['kept:0.5', 'rpi4', '0', '97.00 %', '90 kB', '2 ms', 'front']]
    """
    return [
        [
            t.student,
            t.target,
            str(t.seed),
            f"{100 * t.agreement:.2f} %",
            format_bytes(t.size),
            format_duration(t.latency),
            "front" if t.front else "",
        ]
        for t in trials
    ]
