"""An exponential moving average of a student's weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["EmaStudent"]


class EmaStudent:
    """Follows a student; its average is what is kept at the end.

    Args:
        student: The module that is trained.
        decay: Share of the old average kept per step; smaller in the first steps, so that the
            random start is forgotten.

    Examples:
        >>> import torch
        >>> student = nn.Linear(2, 2)
        >>> average = EmaStudent(student, decay=0.9)
        >>> _ = student.weight.data.add_(1.0)
        >>> average.update()
        >>> bool((average.module.weight < student.weight).all())
        True
    """

    def __init__(self, student: nn.Module, decay: float = 0.99) -> None:
        self.module = copy.deepcopy(student).eval().requires_grad_(False)
        self._decay = decay
        self._steps = 0
        self._pairs = list(zip(self._tensors(self.module), self._tensors(student), strict=True))

    @staticmethod
    def _tensors(module: nn.Module) -> list[Tensor]:
        return [t for t in module.state_dict(keep_vars=True).values() if t.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the student's present weights."""
        self._steps += 1
        decay = min(self._decay, self._steps / (self._steps + 9))
        average = [a for a, _ in self._pairs]
        torch._foreach_lerp_(average, [s.detach() for _, s in self._pairs], 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Weights and step count."""
        return {"module": self.module.state_dict(), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.module.load_state_dict(state["module"])
        self._steps = int(state["steps"])
