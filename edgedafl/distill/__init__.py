"""Data-free distillation: synthesizers, one engine, probes."""

from __future__ import annotations

import torch

from edgedafl.distill.adversarial import AdversarialSettings, AdversarialSynthesizer
from edgedafl.distill.blackbox import BlackBoxSettings, BlackBoxSynthesizer
from edgedafl.distill.budget import Budget
from edgedafl.distill.dafl import DaflSettings, DaflSynthesizer
from edgedafl.distill.engine import Distillation, Distiller
from edgedafl.distill.preflight import Preflight, check_teacher
from edgedafl.distill.reporter import Progress
from edgedafl.distill.samples import class_sheet
from edgedafl.distill.synthesizer import Batch, Recipe, Synthesizer
from edgedafl.distill.zeroth_order import ZerothOrderTeacher
from edgedafl.errors import UsageError
from edgedafl.teachers.base import Teacher

__all__ = [
    "AdversarialSettings",
    "AdversarialSynthesizer",
    "Batch",
    "BlackBoxSettings",
    "BlackBoxSynthesizer",
    "Budget",
    "DaflSettings",
    "DaflSynthesizer",
    "Distillation",
    "Distiller",
    "Preflight",
    "Progress",
    "Recipe",
    "Synthesizer",
    "ZerothOrderTeacher",
    "as_asked",
    "check_teacher",
    "class_sheet",
    "make_synthesizer",
]


def make_synthesizer(method: str, teacher: Teacher, device: torch.device | str = "cpu") -> tuple[str, Synthesizer]:
    """The synthesizer of a method name, and the name that `auto` stands for.

    Raises:
        UsageError: If the method needs gradients that this teacher does not give.
    """
    answers_only = teacher.spec.access != "gradient" and not isinstance(teacher, ZerothOrderTeacher)
    if method == "auto":
        method = "blackbox" if answers_only else "adversarial"
    if method == "blackbox":
        return method, BlackBoxSynthesizer(teacher, device=device)
    if answers_only:
        raise UsageError(
            f"--method {method} needs the teacher's gradients; this teacher gives {teacher.spec.access} only.",
            "Use --method auto, or zeroth-order for a teacher that is cheap to ask.",
        )
    if method == "dafl":
        return method, DaflSynthesizer(teacher, device=device)
    return method, AdversarialSynthesizer(teacher, device=device)


def as_asked(method: str, teacher: Teacher) -> Teacher:
    """The teacher as a method sees it: with estimated gradients for `zeroth-order`.

    Raises:
        UsageError: If only labels are known: they do not change under small steps.
    """
    if method != "zeroth-order" or teacher.spec.access == "gradient":
        return teacher
    if teacher.spec.access == "labels":
        raise UsageError(
            "--method zeroth-order needs scores; this teacher gives labels only.", "Use --method blackbox."
        )
    return ZerothOrderTeacher(teacher)
