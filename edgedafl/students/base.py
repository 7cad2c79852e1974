"""A student: a small network and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

__all__ = ["PRUNED", "LayerComparison", "Student", "StudentSpec"]

PRUNED = "pruned"
"""Architecture name of students that are cut out of their teacher."""


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


class LayerComparison(Protocol):
    """A teacher's layers beside a student's: a lesson for every layer, not only for the last."""

    @property
    def watched(self) -> nn.Module:
        """The student as it is called in training: it keeps what its layers make."""

    @property
    def learned(self) -> nn.Module:
        """Weights that are trained beside the student, and are no part of it."""

    def to(self, device: torch.device | str) -> LayerComparison:
        """Move to a device."""

    def wanted(self, images: Tensor) -> Mapping[str, Tensor]:
        """What the teacher's layers make of images (N,C,H,W), or of the first of them, with its `logits`."""

    def take_seen(self) -> Mapping[str, Tensor]:
        """What the student's layers made of the last batch in training, once."""

    def distance(self, wanted: Mapping[str, Tensor], seen: Mapping[str, Tensor]) -> Tensor:
        """How far both are apart, in units of the size of what the teacher makes, mean over layers."""


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
