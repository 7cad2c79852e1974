"""A student: a small network and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from edgedafl.students.comparison import LayerComparison

__all__ = ["KEPT", "PRUNED", "Student", "StudentSpec"]

PRUNED = "pruned"
"""Architecture name of students that are cut out of their teacher."""

KEPT = "kept"
"""Name of those whose widths are chosen for a share of the teacher's weights."""


@dataclass(frozen=True)
class StudentSpec:
    """What is known of a student.

    Attributes:
        name: Architecture name, with its width where that is not 1, e.g. `resnet8:0.5`.
        architecture: The name in the registry, or the user's `my.py:build`.
        width: Factor on the channels.
        input_shape: (C, H, W).
        num_classes: K.
        parameters: Count of weights.
        macs: Multiply-accumulates per image.
    """

    name: str
    architecture: str
    width: float
    input_shape: tuple[int, int, int]
    num_classes: int
    parameters: int
    macs: int

    @property
    def inherited(self) -> bool:
        """Whether it begins with its teacher's weights, which a high rate would shake off."""
        return self.architecture == PRUNED

    def to_dict(self) -> dict[str, Any]:
        """A JSON form."""
        return {**vars(self), "input_shape": list(self.input_shape)}


@dataclass(frozen=True)
class Student:
    """A module that maps images (N,C,H,W) in the teacher's model space to logits (N,K).

    Attributes:
        module: The network.
        spec: What is known of it.
        layers: Its teacher's layers beside its own, where the teacher can be looked into.
    """

    module: nn.Module
    spec: StudentSpec
    layers: LayerComparison | None = None
