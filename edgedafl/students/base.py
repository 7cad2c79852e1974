"""A student: a small network and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from edgedafl.runs import KEPT, PRUNED, StudentSpec
from edgedafl.students.features.loss import FeatureLoss

__all__ = ["KEPT", "PRUNED", "Student", "StudentSpec"]


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
    layers: FeatureLoss | None = None
