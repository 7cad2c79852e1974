"""Is a distillation still learning anything? Collapse and NaN are seen here."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from edgedafl.distill.losses import entropy_share

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

    window = _WINDOW

    def __init__(self) -> None:
        self._bad = 0

    def check(self, logits: Tensor, loss: float) -> Symptom | None:
        """Judge the teacher's logits (N, K) on the newest images and the last student loss."""
        if not math.isfinite(loss) or not bool(torch.isfinite(logits).all()):
            return Symptom("nan", f"the student's loss is {loss}")
        classes = logits.shape[1]
        counts = torch.bincount(logits.argmax(1), minlength=classes).float()
        share = entropy_share(counts / counts.sum())
        if share >= _COLLAPSED_BELOW:
            self._bad = 0
            return None
        self._bad += 1
        if self._bad < _PATIENCE:
            return None
        self._bad = 0
        top = float(counts.max() / counts.sum())
        return Symptom(
            "collapse",
            f"{top:.0%} of the newest images are of one class "
            f"(class entropy {share:.2f} of its maximum, expected above {_COLLAPSED_BELOW})",
        )
