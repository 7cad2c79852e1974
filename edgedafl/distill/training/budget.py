"""How long a distillation may run, and the schedules that fit it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["SCHEDULES", "Budget", "Clock", "cosine", "rows_within_budget"]

FLOOR = 0.01
_GRACE = 1 / 30
_MOST_LEFT = 1 / 20
_GPU = 100  # times what a few cores compute in the same time


def rows_within_budget(macs: int, *, effort: float, fewest: int, most: int, device: torch.device | str = "cpu") -> int:
    """How many images a network may be asked about where that teaches no student anything yet.

    Args:
        macs: Its multiply-accumulates per image; 0 where they are not known.
        effort: Multiply-accumulates it may take altogether on a few cores; GPUs get more.
        fewest: Images that are needed at least.
        most: Images beyond which nothing is gained.
        device: Where it runs.

    Examples:
        >>> rows_within_budget(1_000_000, effort=1e9, fewest=100, most=400)
        400
        >>> rows_within_budget(58_000_000, effort=1e9, fewest=100, most=400)
        100
    """
    factor = 1 if torch.device(device).type == "cpu" else _GPU
    return int(min(max(fewest, factor * effort / max(macs, 1)), most))


@dataclass(frozen=True)
class Budget:
    """Limits of a run; whichever is reached first ends it.

    Attributes:
        seconds: Wall time, or None.
        steps: Generator steps, or None.
    """

    seconds: float | None = None
    steps: int | None = None


class Clock:
    """Progress through a budget; time spent before an interruption counts.

    Examples:
        >>> clock = Clock(Budget(seconds=None, steps=10))
        >>> clock.fraction(5), clock.fraction(10)
        (0.5, 1.0)
    """

    def __init__(self, budget: Budget, elapsed: float = 0.0) -> None:
        self.budget = budget
        self._before = elapsed
        self._left = 0.0
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds spent so far, over all parts of the run."""
        return self._before + time.monotonic() - self._start

    def leave(self, seconds: float) -> None:
        """Leave time to what follows the last step; a twentieth of the budget at most."""
        self._left = max(self._left, min(seconds, (self.budget.seconds or 0.0) * _MOST_LEFT))

    @property
    def _end(self) -> float | None:
        """When the last step is to end."""
        return None if self.budget.seconds is None else self.budget.seconds - self._left

    @property
    def is_over(self) -> bool:
        """Whether the time is used up."""
        return self._end is not None and self.elapsed >= self._end

    def overruns(self, seconds: float) -> bool:
        """Whether something that takes so long would end more than a thirtieth after the time."""
        if self._end is None or not seconds:
            return False
        return self.elapsed + seconds > self._end * (1 + _GRACE)

    def fraction(self, step: int) -> float:
        """Progress in [0, 1]; at 1 the run ends."""
        shares = [0.0]
        if self._end is not None:
            shares.append(self.elapsed / self._end)
        if self.budget.steps is not None:
            shares.append(step / self.budget.steps)
        return min(1.0, max(shares))


def _steps(fraction: float) -> float:
    """A tenth from 0.4 of the budget, a hundredth from 0.8: epochs 800 and 1600 of DAFL's 2000."""
    return 1.0 if fraction < 0.4 else 0.1 if fraction < 0.8 else 0.01


def cosine(fraction: float) -> float:
    """Half a cosine from 1 to a floor of 0.01.

    Examples:
        >>> cosine(0.0), round(cosine(0.5), 2), round(cosine(1.0), 2)
        (1.0, 0.5, 0.01)
    """
    return max(FLOOR, 0.5 * (1 + math.cos(math.pi * fraction)))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": cosine,
    "steps": _steps,
    "constant": lambda fraction: 1.0,
}
"""Factor on a learning rate by progress in [0, 1]."""
