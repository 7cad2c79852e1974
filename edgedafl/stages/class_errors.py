"""Which classes an artifact gets wrong on the user's labelled pictures, beside its teacher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from edgedafl.runs import Confused, LostClass

__all__ = ["confusions", "lost_classes"]

_MOST = 10


def lost_classes(
    labels: np.ndarray, teacher: np.ndarray, artifact: np.ndarray, names: Sequence[str]
) -> list[LostClass]:
    """The classes that lose most; the greatest loss in pictures first.

    Args:
        labels: Classes (N,).
        teacher: Classes (N,) that the teacher answers.
        artifact: Classes (N,) that the artifact answers.
        names: Of all classes.

    Examples:
        >>> labels, teacher, artifact = np.array([0, 0, 1]), np.array([0, 0, 1]), np.array([0, 1, 1])
        >>> (cat,) = lost_classes(labels, teacher, artifact, ["cat", "dog"])
        >>> cat.name, cat.teacher, cat.artifact
        ('cat', 1.0, 0.5)
    """
    losses = {}
    for label in np.unique(labels):
        rows = labels == label
        lost = int((teacher[rows] == label).sum()) - int((artifact[rows] == label).sum())
        if lost > 0:
            instead = int(np.bincount(artifact[rows & (artifact != label)]).argmax())
            right = float((teacher[rows] == label).mean()), float((artifact[rows] == label).mean())
            losses[int(label)] = lost, LostClass(names[label], int(rows.sum()), *right, names[instead])
    return [losses[label][1] for label in sorted(losses, key=lambda label: -losses[label][0])[:_MOST]]


def confusions(labels: np.ndarray, teacher: np.ndarray, artifact: np.ndarray, names: Sequence[str]) -> list[Confused]:
    """The pairs of classes that the artifact confuses most often.

    Args:
        labels: Classes (N,).
        teacher: Classes (N,) that the teacher answers.
        artifact: Classes (N,) that the artifact answers.
        names: Of all classes.

    Examples:
        >>> labels, teacher, artifact = np.array([0, 0, 1]), np.array([0, 0, 1]), np.array([0, 1, 1])
        >>> confusions(labels, teacher, artifact, ["cat", "dog"])
        [Confused(name='cat', answered='dog', teacher=0, artifact=1)]
    """
    by_teacher, commonest = _pairs(labels, teacher), _pairs(labels, artifact).most_common(_MOST)
    return [Confused(names[a], names[b], by_teacher[a, b], count) for (a, b), count in commonest]


def _pairs(labels: np.ndarray, answers: np.ndarray) -> Counter[tuple[int, int]]:
    wrong = labels != answers
    return Counter(zip(labels[wrong].tolist(), answers[wrong].tolist(), strict=True))
