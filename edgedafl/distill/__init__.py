"""Data-free distillation: synthesizers, one engine, probes."""

from edgedafl.distill.distributed import DistributedContext, init_distributed
from edgedafl.distill.engine import Distiller
from edgedafl.distill.methods import METHODS, make_synthesizer, settings_of, with_estimated_gradients
from edgedafl.distill.monitoring.preflight import check_teacher
from edgedafl.distill.monitoring.samples import class_sheet
from edgedafl.distill.outcome import Distillation
from edgedafl.distill.synthesizers import (
    AdversarialSettings,
    AdversarialSynthesizer,
    Batch,
    BlackBoxSettings,
    BlackBoxSynthesizer,
    DaflSettings,
    DaflSynthesizer,
    ProceduralImages,
    Recipe,
    Synthesizer,
)
from edgedafl.distill.synthesizers.zeroth_order import ZerothOrderTeacher
from edgedafl.distill.training.budget import Budget

__all__ = [
    "METHODS",
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
    "DistributedContext",
    "ProceduralImages",
    "Recipe",
    "Synthesizer",
    "ZerothOrderTeacher",
    "check_teacher",
    "class_sheet",
    "init_distributed",
    "make_synthesizer",
    "settings_of",
    "with_estimated_gradients",
]
