"""What can be seen without data of how near a model's answers are to its teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgedafl.tasks import SINGLE_LABEL, Task, agreement, predictions

__all__ = ["KINDS", "Comparison", "Signals", "compare_answers"]

KINDS = ("natural", "mixture")
"""Kinds of synthetic images: with the statistics of photographs, and those that tell most about the teacher."""
_LEAST_ERROR = 1e-5


@dataclass(frozen=True)
class Comparison:
    """A model's answers beside its teacher's on images of one kind.

    Attributes:
        agreement: Share of equal classes, in [0, 1].
        weighted: The same, each image counted by the teacher's margin: synthetic images are less clear than
            real ones, and a class that hardly wins is easily lost.
        error: Mean squared error of the logits as a share of their variance.
    """

    agreement: float
    weighted: float
    error: float


@dataclass(frozen=True)
class Signals:
    """Everything a prediction of fidelity rests on.

    Attributes:
        comparisons: By kind of image, see `KINDS`.
        classes: How many the teacher knows.
        colour: Whether the teacher takes colour images.
        whole: Whether the model is the teacher itself in other numbers: it errs by rounding alone.
        eight_bits: Where its weights take fewer bits than eight: mean error of the same teacher in eight, see
            `mean_error`. What bits cost is told from there.
    """

    comparisons: Mapping[str, Comparison]
    classes: int
    colour: bool = False
    whole: bool = False
    eight_bits: float | None = None

    @property
    def mean_error(self) -> float:
        """Geometric mean of the logits' errors over all kinds of images, in [1e-5, 1]."""
        errors = [min(max(found.error, _LEAST_ERROR), 1.0) for found in self.comparisons.values()]
        return float(np.exp(np.mean(np.log(errors))))

    def to_dict(self) -> dict[str, object]:
        """A JSON form."""
        kinds = {kind: asdict(found) for kind, found in self.comparisons.items()}
        flags = {"colour": self.colour, "whole": self.whole}
        return {"classes": self.classes, **flags, "eight_bits": self.eight_bits, **kinds}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Signals:
        """Inverse of `to_dict`."""
        found = {kind: Comparison(**data[kind]) for kind in KINDS if kind in data}  # type: ignore[arg-type]
        eight_bits: Any = data.get("eight_bits")
        return cls(found, int(str(data["classes"])), bool(data["colour"]), bool(data["whole"]), eight_bits)


def compare_answers(teacher: np.ndarray, model: np.ndarray, task: Task = SINGLE_LABEL) -> Comparison:
    """Compare logits on the same images.

    Args:
        teacher: (N, K).
        model: (N, K).
        task: See `tasks`.

    Examples:
        >>> found = compare_answers(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.0]]))
        >>> found.agreement
        0.5
    """
    teacher, model = teacher.astype(np.float64), model.astype(np.float64)
    wanted, found = predictions(teacher, task), predictions(model, task)
    if task == SINGLE_LABEL:
        # A constant in all logits of an image changes no answer.
        teacher, model = (x - x.mean(1, keepdims=True) for x in (teacher, model))
        best = np.sort(teacher, 1)[:, -2:]
        margins, same = best[:, 1] - best[:, 0], wanted == found
    else:
        margins, same = np.abs(teacher).reshape(-1), (wanted == found).reshape(-1)
    variance = max(float(np.var(teacher)), 1e-12)
    total = float(margins.sum())
    weighted = float((margins * same).sum()) / total if total > 0 else float(same.mean())
    return Comparison(agreement(wanted, found), weighted, float(np.mean((teacher - model) ** 2)) / variance)
