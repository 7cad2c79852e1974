"""Is a distillation still learning anything? Collapse and NaN are seen here."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgedafl.distill.losses import entropy_share
from edgedafl.tasks import SINGLE_LABEL, states

__all__ = ["HealthMonitor", "Symptom"]

# Health is judged over this many newest images.
_WINDOW = 2000
# A healthy generator keeps its classes balanced to 0.9 and more of the maximal entropy.
_COLLAPSED_BELOW = 0.5
_PATIENCE = 3


@dataclass(frozen=True)
class Symptom:
    """What is wrong.

    Attributes:
        kind: `nan` or `collapse`.
        text: One sentence with the numbers.
    """

    kind: str
    text: str


class HealthMonitor:
    """Judges the newest images' teacher answers and the student's loss.

    A collapse must be seen several checks in a row: early generators swing through one class
    at a time and recover by themselves.
    """

    def __init__(self, task: str = SINGLE_LABEL) -> None:
        self._task = task
        self._recent: deque[Tensor] = deque()
        self._rows = 0
        self._bad = 0

    def forget(self) -> None:
        """Begin anew, after a restart."""
        self._recent.clear()
        self._rows = self._bad = 0

    def state_dict(self) -> dict[str, Any]:
        """What was watched."""
        return {"recent": [*self._recent], "bad": self._bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.forget()
        for logits in state["recent"]:
            self.watch(logits)
        self._bad = int(state["bad"])

    def watch(self, logits: Tensor) -> None:
        """Take note of the teacher's logits (N, K) on images that a generator has just made."""
        if len(logits):
            self._recent.append(logits)
            self._rows += len(logits)
        while self._recent and self._rows - len(self._recent[0]) >= _WINDOW:
            self._rows -= len(self._recent.popleft())

    def check(self, loss: float) -> Symptom | None:
        """Judge what was watched lately, and the last student loss."""
        logits = torch.cat([*self._recent]) if self._recent else torch.zeros(0, 1)
        if not math.isfinite(loss) or not bool(torch.isfinite(logits).all()):
            return Symptom("nan", f"the student's loss is {loss}")
        if not len(logits):
            return None
        scores = states(logits, self._task)
        classes = scores.shape[-1]
        # Of several labels the most varied counts: one that hardly ever changes is no collapse.
        labels = scores.argmax(-1).reshape(len(logits), -1).unbind(1)
        tallies = [torch.bincount(label, minlength=classes).float() for label in labels]
        share, counts = max(((entropy_share(t / t.sum()), t) for t in tallies), key=lambda pair: pair[0])
        if share >= _COLLAPSED_BELOW:
            self._bad = 0
            return None
        self._bad += 1
        if self._bad < _PATIENCE:
            return None
        self.forget()
        top = float(counts.max() / counts.sum())
        return Symptom(
            "collapse",
            f"{top:.0%} of the newest images are of one class "
            f"(class entropy {share:.2f} of its maximum, expected above {_COLLAPSED_BELOW})",
        )
