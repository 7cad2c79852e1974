"""Is a distillation still learning anything? NaN, divergence, collapse, lost classes, sameness are seen here."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgedafl.distill.training.losses import entropy_share
from edgedafl.tasks import SINGLE_LABEL, Task, states

__all__ = ["KINDS", "HealthMonitor", "Symptom"]

KINDS = ("nan", "divergence", "collapse", "sameness", "lost classes")
"""Of symptoms."""

# Health is judged over this many newest images.
_WINDOW = 2000
# A healthy generator keeps its classes balanced to 0.9 and more of the maximal entropy.
_COLLAPSED_BELOW = 0.5
# A class counts as lost when it gets less than this share of its due.
_LOST_BELOW = 0.2
# Images of one class should differ: spread within classes over the spread of all.
_SAME_BELOW = 0.03
# How many checks in a row must agree. Generators swing; classes that are hard to make come late.
_PATIENCE = {"collapse": 3, "sameness": 5, "lost classes": 40}
# A student's loss is of the size of the teacher's logits, or of some units of its layers' distance.
_DIVERGED = 1e3
# Fewer images per class than this say nothing about a class.
_LEAST_PER_CLASS = 20


@dataclass(frozen=True)
class Symptom:
    """What is wrong.

    Attributes:
        kind: One of KINDS.
        text: One sentence with the numbers.
    """

    kind: str
    text: str

    @property
    def is_fatal(self) -> bool:
        """Whether a run that shows it again and again must end."""
        return self.kind in ("nan", "divergence", "collapse")


class HealthMonitor:
    """Judges the newest images' teacher answers and the student's loss.

    A symptom must be seen several checks in a row: early generators swing through one class at a
    time and recover by themselves.

    Args:
        task: See `tasks`.
        labels_only: The teacher answers labels: equal answers say nothing about equal images.
    """

    def __init__(self, task: Task = SINGLE_LABEL, *, labels_only: bool = False) -> None:
        self._task = task
        self._labels_only = labels_only
        self._recent: deque[Tensor] = deque()
        self.forget()

    def forget(self) -> None:
        """Begin anew, after a restart."""
        self._recent.clear()
        self._rows = 0
        self._seen = dict.fromkeys(_PATIENCE, 0)
        self._largest = torch.zeros(())  # magnitude of a logit

    def state_dict(self) -> dict[str, Any]:
        """What was watched."""
        return {"recent": [*self._recent], "seen": dict(self._seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.forget()
        for logits in state["recent"]:
            self.watch(logits)
        self._seen = {kind: int(count) for kind, count in state["seen"].items()}

    def watch(self, logits: Tensor, others: Tensor | None = None) -> None:
        """Take note of the teacher's newest answers.

        Args:
            logits: To images that a generator has just made (N, K): its health is judged by them.
            others: To all images of the step, where they are not the same; they tell the size of logits.
        """
        answers = logits if others is None else others
        if len(answers):  # stays on its device until the next check
            self._largest = torch.maximum(self._largest.to(answers.device), answers.abs().max())
        if len(logits):
            self._recent.append(logits)
            self._rows += len(logits)
        while self._recent and self._rows - len(self._recent[0]) >= _WINDOW:
            self._rows -= len(self._recent.popleft())

    def check(self, loss: float) -> Symptom | None:
        """Compare what was watched lately, and the last student loss."""
        logits = torch.cat([*self._recent]) if self._recent else torch.zeros(0, 1)
        if not math.isfinite(loss) or not bool(torch.isfinite(self._largest)):
            return Symptom("nan", f"the student's loss is {loss}")
        if loss > _DIVERGED * (1 + float(self._largest)):
            return Symptom("divergence", f"the student's loss has grown to {loss:.1e}")
        if not len(logits):
            return None
        scores = states(logits, self._task)
        signs = {
            "collapse": _collapse(scores),
            "sameness": "" if self._labels_only else _sameness(scores),
            "lost classes": _lost(scores),
        }
        for kind, text in signs.items():
            self._seen[kind] = self._seen[kind] + 1 if text else 0
            if self._seen[kind] >= _PATIENCE[kind]:
                self.forget()
                return Symptom(kind, text)
        return None


def _tallies(scores: Tensor) -> list[Tensor]:
    """How often each class is first, per label."""
    labels = scores.argmax(-1).reshape(len(scores), -1).unbind(1)
    return [torch.bincount(label, minlength=scores.shape[-1]).float() for label in labels]


def _collapse(scores: Tensor) -> str:
    # Of several labels the most varied counts: one that hardly ever changes is not a collapse.
    share, counts = max(((entropy_share(t / t.sum()), t) for t in _tallies(scores)), key=lambda pair: pair[0])
    if share >= _COLLAPSED_BELOW:
        return ""
    top = float(counts.max() / counts.sum())
    return (
        f"{top:.0%} of the newest images are of one class "
        f"(class entropy {share:.2f} of its maximum, expected above {_COLLAPSED_BELOW})"
    )


def _sameness(scores: Tensor) -> str:
    if scores.ndim > 2:
        return ""  # several labels: images of one combination are too few
    whole = float(scores.std(0).mean())
    classes = scores.argmax(-1)
    spreads = [scores[classes == k].std(0).mean() for k in classes.unique() if int((classes == k).sum()) > 1]
    if not spreads or whole == 0:
        return ""
    within = float(torch.stack(spreads).mean()) / whole
    if within >= _SAME_BELOW:
        return ""
    return f"images of one class are all alike (spread {within:.3f} of that of all, expected above {_SAME_BELOW})"


def _lost(scores: Tensor) -> str:
    classes = scores.shape[-1]
    if scores.ndim > 2 or len(scores) < _LEAST_PER_CLASS * classes or len(scores) < _WINDOW:
        return ""
    share = _tallies(scores)[0] / len(scores)
    lost = (share < _LOST_BELOW / classes).nonzero()[:, 0].tolist()
    if not lost:
        return ""
    named = ", ".join(map(str, lost[:5])) + (", ..." if len(lost) > 5 else "")
    return f"{len(lost)} of {classes} classes ({named}) hardly appear in the newest images"
