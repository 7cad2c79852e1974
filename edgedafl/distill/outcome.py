"""What a distillation leaves behind."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from edgedafl.distill.monitoring.probes import ProbeSets
from edgedafl.distill.training.pool import Pool
from edgedafl.runs import AgreementReport

__all__ = ["Distillation"]


@dataclass(frozen=True)
class Distillation:
    """The result.

    Attributes:
        student: The averaged student in evaluation mode.
        agreement: Its synthetic agreement on all probe sets.
        pool: The replay pool, for calibration and pictures.
        probes: The probe sets.
        steps: Synthesizer steps taken.
        seconds: Time spent.
        queries: Rows the teacher answered.
        recoveries: What went wrong on the way and was recovered.
        images_per_second: Student images per second over the whole run.
        bare_images_per_second: The same of the student's bare training step on this device: the
            most there is to reach.
    """

    student: nn.Module
    agreement: AgreementReport
    pool: Pool
    probes: ProbeSets
    steps: int
    seconds: float
    queries: int
    recoveries: tuple[str, ...]
    images_per_second: float
    bare_images_per_second: float
