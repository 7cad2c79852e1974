"""Which classes an artifact gets wrong on the user's labelled pictures, beside its teacher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["Confused", "LostClass", "confusions", "lost_classes"]

_MOST = 10
TEACHER = "teacher"


@dataclass(frozen=True)
class LostClass:
    """A class of which an artifact knows fewer pictures than the teacher.

    Attributes:
        name: Of the class, or its number.
        images: Labelled pictures of it.
        teacher: Share that the teacher answers right, in [0, 1].
        artifact: Share that the artifact answers right.
        taken_for: The class that the artifact answers most often instead.
    """

    name: str
    images: int
    teacher: float
    artifact: float
    taken_for: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class Confused:
    """One class answered for another.

    Attributes:
        name: Of the labelled class.
        answered: The class that is answered instead.
        teacher: Pictures of which the teacher does so.
        artifact: Pictures of which the artifact does so.
    """

    name: str
    answered: str
    teacher: int
    artifact: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON form."""
        return asdict(self)


def lost_classes(
    labels: np.ndarray, answers: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, list[LostClass]]:
    """The classes that lose most, by precision; the greatest loss in pictures first.

    Args:
        labels: Classes (N,).
        answers: Classes (N,) as the `teacher` and every precision answer them.
        names: Of all classes.
    """
    if TEACHER not in answers:
        return {}
    teacher = answers[TEACHER]
    found = {}
    for precision, mine in answers.items():
        if precision == TEACHER:
            continue
        losses = {}
        for label in np.unique(labels):
            rows = labels == label
            lost = int((teacher[rows] == label).sum()) - int((mine[rows] == label).sum())
            if lost > 0:
                wrong = mine[rows & (mine != label)]
                instead = int(np.bincount(wrong).argmax())
                right = float((teacher[rows] == label).mean()), float((mine[rows] == label).mean())
                losses[int(label)] = lost, LostClass(names[label], int(rows.sum()), *right, names[instead])
        found[precision] = [losses[k][1] for k in sorted(losses, key=lambda k: -losses[k][0])[:_MOST]]
    return found


def confusions(
    labels: np.ndarray, answers: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, list[Confused]]:
    """The pairs of classes that are confused most often, by precision.

    Args:
        labels: Classes (N,).
        answers: Classes (N,) as the `teacher` and every precision answer them.
        names: Of all classes.
    """
    if TEACHER not in answers:
        return {}
    by_teacher = _pairs(labels, answers[TEACHER])
    found = {}
    for precision, mine in answers.items():
        if precision == TEACHER:
            continue
        commonest = _pairs(labels, mine).most_common(_MOST)
        found[precision] = [Confused(names[a], names[b], by_teacher[a, b], count) for (a, b), count in commonest]
    return found


def _pairs(labels: np.ndarray, answers: np.ndarray) -> Counter[tuple[int, int]]:
    wrong = labels != answers
    return Counter(zip(labels[wrong].tolist(), answers[wrong].tolist(), strict=True))
