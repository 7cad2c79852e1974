"""What training of a given time may make of a student: before it is trained, to choose by."""

from __future__ import annotations

from edgedafl.runs import Band
from edgedafl.stages.study import Study

__all__ = ["after_training", "student_steps"]

_BATCH = 128
# Forward and backward pass of the student and the teacher's answer, in teacher passes.
_PASSES = 4.0
_MANY_STEPS = 1500
# Share of the wrong answers that many steps of training mend.
_MENDED = 0.4


def student_steps(seconds: float | None, study: Study, share_of_macs: float) -> int:
    """Training steps that a time allows, reckoned from how fast the teacher answers.

    Args:
        seconds: The time; None means no limit.
        study: Of the teacher.
        share_of_macs: Of the student's multiply-accumulates over the teacher's.

    Examples:
        >>> from types import SimpleNamespace
        >>> student_steps(60.0, SimpleNamespace(seconds=0.01), 0.5)  # a teacher of 10 ms an image
        18
    """
    if seconds is None:
        return _MANY_STEPS
    step = _BATCH * study.seconds * (1 + (_PASSES - 1) * share_of_macs)
    return int(seconds / max(step, 1e-6))


def after_training(band: Band | None, steps: int) -> Band | None:
    """Fidelity that so many steps of training lead to.

    Args:
        band: Before them; None where it is not known.
        steps: Of the student.

    Examples:
        >>> found = after_training(Band(0.9, 0.8, 1.0, 0.85), 1500)
        >>> round(found.fidelity, 2)
        0.94
    """
    if band is None:
        return None
    mended = _MENDED * min(1.0, steps / _MANY_STEPS)
    return band.mapped(lambda reached: 1 - (1 - mended) * (1 - reached))
