"""Data-free distillation: synthesizers, one engine, probes."""

from __future__ import annotations

import torch

from edgedafl.distill.adversarial import AdversarialSettings, AdversarialSynthesizer
from edgedafl.distill.budget import Budget
from edgedafl.distill.dafl import DaflSettings, DaflSynthesizer
from edgedafl.distill.engine import Distillation, Distiller, Progress
from edgedafl.distill.preflight import Preflight, check_teacher
from edgedafl.distill.samples import class_sheet
from edgedafl.distill.synthesizer import Batch, Recipe, Synthesizer
from edgedafl.teachers.base import Teacher

__all__ = [
    "AdversarialSettings",
    "AdversarialSynthesizer",
    "Batch",
    "Budget",
    "DaflSettings",
    "DaflSynthesizer",
    "Distillation",
    "Distiller",
    "Preflight",
    "Progress",
    "Recipe",
    "Synthesizer",
    "check_teacher",
    "class_sheet",
    "make_synthesizer",
]


def make_synthesizer(method: str, teacher: Teacher, device: torch.device | str = "cpu") -> tuple[str, Synthesizer]:
    """The synthesizer of a method name, and the name that `auto` stands for."""
    if method == "dafl":
        return method, DaflSynthesizer(teacher, device=device)
    return "adversarial", AdversarialSynthesizer(teacher, device=device)
