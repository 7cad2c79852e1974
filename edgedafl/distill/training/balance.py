"""A weight of the class balance that sets itself, so that a new dataset needs no search."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["EntropyWeight"]

_TOO_LOW, _HIGH_ENOUGH = 0.95, 0.99
_RAISE, _LOWER = 1.05, 0.97
_LEAST, _MOST = 0.2, 8.0
_MEMORY = 0.9


class EntropyWeight:
    """Rises while some classes are missing, falls when all are there and images become unclear.

    Everything stays on the device: no step waits for a number.

    Args:
        start: First weight; it stays within a fifth and eight times of that.
        states: How many classes (states of a label) there are.
        device: Where losses are computed.

    Examples:
        >>> weight = EntropyWeight(5.0, 10)
        >>> float(weight(torch.tensor(-0.2), torch.tensor(0.1))) > 5.0  # hardly any class is there
        True
    """

    def __init__(self, start: float, states: int, device: torch.device | str = "cpu") -> None:
        self._start = start
        self._most = math.log10(states)
        self._value = torch.tensor(float(start), device=device)
        self._clear = torch.tensor(0.0, device=device)

    @torch.no_grad()
    def __call__(self, entropy: Tensor, one_hot: Tensor) -> Tensor:
        """The weight for this step.

        Args:
            entropy: The information-entropy loss: minus the entropy, base 10.
            one_hot: The one-hot loss; it rises as images become unclear.
        """
        share = -entropy / self._most
        unclear = one_hot > self._clear
        self._clear = _MEMORY * self._clear + (1 - _MEMORY) * one_hot
        factor = torch.where(share < _TOO_LOW, _RAISE, 1.0)
        factor = torch.where((share > _HIGH_ENOUGH) & unclear, _LOWER, factor)
        self._value = (self._value * factor).clamp(_LEAST * self._start, _MOST * self._start)
        return self._value

    def state_dict(self) -> dict[str, Any]:
        """Weight and memory."""
        return {"value": self._value, "clear": self._clear}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._value = state["value"].to(self._value.device)
        self._clear = state["clear"].to(self._clear.device)
