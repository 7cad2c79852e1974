"""Data-free distillation: synthesizers, one engine, probes."""

from edgedafl.distill.budget import Budget
from edgedafl.distill.engine import Distillation, Distiller
from edgedafl.distill.methods import METHODS, as_asked, make_synthesizer, settings_of
from edgedafl.distill.preflight import check_teacher
from edgedafl.distill.samples import class_sheet
from edgedafl.distill.synthesizers import (
    AdversarialSettings,
    AdversarialSynthesizer,
    Batch,
    BlackBoxSettings,
    BlackBoxSynthesizer,
    Companions,
    DaflSettings,
    DaflSynthesizer,
    Recipe,
    Synthesizer,
)
from edgedafl.distill.world import World, join_world
from edgedafl.distill.zeroth_order import ZerothOrderTeacher

__all__ = [
    "METHODS",
    "AdversarialSettings",
    "AdversarialSynthesizer",
    "Batch",
    "BlackBoxSettings",
    "BlackBoxSynthesizer",
    "Budget",
    "Companions",
    "DaflSettings",
    "DaflSynthesizer",
    "Distillation",
    "Distiller",
    "Recipe",
    "Synthesizer",
    "World",
    "ZerothOrderTeacher",
    "as_asked",
    "check_teacher",
    "class_sheet",
    "join_world",
    "make_synthesizer",
    "settings_of",
]
