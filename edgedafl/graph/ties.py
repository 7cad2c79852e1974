"""Channels that must be treated alike, as a disjoint-set forest."""

from __future__ import annotations

import numpy as np

__all__ = ["Ties"]


class Ties:
    """Units by number, and which of them are tied to each other.

    Examples:
        >>> ties = Ties()
        >>> first, second = ties.fresh(2), ties.fresh(2)
        >>> ties.merge(first, second)
        >>> ties.roots(np.array([0, 1, 2, 3])).tolist()
        [2, 3, 2, 3]
    """

    def __init__(self) -> None:
        self._parents: list[int] = []

    def __len__(self) -> int:
        return len(self._parents)

    def fresh(self, count: int) -> np.ndarray:
        """Numbers of new units, tied to none."""
        start = len(self._parents)
        self._parents += range(start, start + count)
        return np.arange(start, start + count)

    def merge(self, one: np.ndarray, other: np.ndarray) -> None:
        """Tie units to others, place by place."""
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            self._parents[self.root(a)] = self.root(b)

    def root(self, unit: int) -> int:
        """The unit that stands for all that are tied to this one."""
        while self._parents[unit] != unit:
            self._parents[unit] = self._parents[self._parents[unit]]
            unit = self._parents[unit]
        return unit

    def roots(self, units: np.ndarray) -> np.ndarray:
        """The same of several."""
        return np.array([self.root(unit) for unit in units.tolist()], int)
