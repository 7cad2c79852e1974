"""Stage: how faithful the artifact is, and whether that is enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import onnx
import torch

from edgedafl.graph.packed import ALL_BITS
from edgedafl.runs import Band, Candidate, FidelityVerdict, RunDirectory
from edgedafl.stages.study import Study, resized
from edgedafl.students import StudentSpec
from edgedafl.units import format_bytes, format_duration

__all__ = ["band_of", "is_whole", "verdict_stage"]


def band_of(model: onnx.ModelProto, study: Study, spec: StudentSpec) -> Band | None:
    """Fidelity of a student's model at batch 1, which may take smaller images than the teacher.

    Examples:
        >>> import onnx
        >>> from edgedafl.runs import RunDirectory
        >>> from edgedafl.stages.study import study_teacher
        >>> from edgedafl.teachers import TeacherOptions, load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx", TeacherOptions(mean=(0.1307,), std=(0.3081,)))
        >>> integers = onnx.load("runs/teacher-rpi4/models/rpi4/int8.onnx")
        >>> band_of(integers, study_teacher(teacher), RunDirectory("runs/teacher-rpi4").record().student).kind
        'predicted'
    """
    return study.band_of_graph(model, whole=is_whole(spec, study))


def _band_of_scores(
    scores_of: Callable[[np.ndarray], np.ndarray], study: Study, spec: StudentSpec, few: bool | None
) -> Band | None:
    sides = (spec.input_shape[1], spec.input_shape[2])
    return study.band(
        lambda images: torch.from_numpy(scores_of(resized(images, sides).numpy())),
        whole=is_whole(spec, study),
        few=few,
    )


def is_whole(spec: StudentSpec, study: Study) -> bool:
    """Whether a student is the teacher itself, uncut and at its own size.

    Examples:
        >>> from edgedafl.runs import RunDirectory
        >>> from edgedafl.stages.study import study_teacher
        >>> from edgedafl.teachers import TeacherOptions, load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx", TeacherOptions(mean=(0.1307,), std=(0.3081,)))
        >>> is_whole(RunDirectory("runs/teacher-rpi4").record().student, study_teacher(teacher))
        True
    """
    return spec.inherited and spec.width >= 1 and spec.input_shape == study.teacher.spec.input_shape


def verdict_stage(
    run: RunDirectory,
    study: Study,
    spec: StudentSpec,
    answers_of: Callable[[], onnx.ModelProto | Callable[[np.ndarray], np.ndarray]],
    floor: float,
    *,
    labelled: Band | None,
    ladder: tuple[Candidate, ...],
) -> FidelityVerdict:
    """Judge the artifact and record the verdict.

    Args:
        run: The run.
        study: Of the teacher.
        spec: Of the student.
        answers_of: Gives the artifact's graph; or, where that is not what is shipped, a function from images
            (N,C,H,W) at the artifact's size to scores (N,K).
        floor: Fidelity asked for.
        labelled: Fidelity on the user's labelled images, where they were given.
        ladder: The candidates that were looked at.

    Examples:
        >>> import onnx
        >>> from edgedafl.stages.study import study_teacher
        >>> from edgedafl.teachers import TeacherOptions, load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx", TeacherOptions(mean=(0.1307,), std=(0.3081,)))
        >>> run, study = RunDirectory("runs/teacher-rpi4"), study_teacher(teacher)
        >>> integers = onnx.load("runs/teacher-rpi4/models/rpi4/int8.onnx")
        >>> found = verdict_stage(run, study, run.record().student, lambda: integers, 0.95, labelled=None, ladder=())
        >>> found.floor, found.band.kind
        (0.95, 'predicted')
    """
    artifact, record = answers_of(), run.record()
    few = record.weight_bits < ALL_BITS if record.shipped == "int8" else None
    predicted = _band_of_scores(artifact, study, spec, few) if callable(artifact) else band_of(artifact, study, spec)
    band = labelled or predicted
    holds, sentence = _judged(band, floor)
    if not holds:
        in_floats = is_whole(spec, study) and record.shipped == "int8"
        sentence += " " + _remedy(floor, ladder, (spec.name, record.weight_bits), in_floats=in_floats)
    verdict = FidelityVerdict(band, floor, holds, sentence, predicted)
    run.update(verdict=asdict(verdict))
    return verdict


def _judged(band: Band | None, floor: float) -> tuple[bool, str]:
    if band is None:
        return True, (
            "Fidelity unknown: this teacher's answers do not show enough. "
            "Give pictures with --images or labelled images with --eval."
        )
    figure = f"{100 * band.fidelity:.1f} % ({100 * band.low:.1f} to {100 * band.high:.1f} %, {_kind(band)})"
    if not floor:
        return True, f"Fidelity {figure}; no floor was asked for (--min-fidelity 0)."
    if band.fidelity >= floor:
        return True, f"Faithful: {figure}, at least {100 * floor:.4g} % asked for."
    return False, f"Not faithful: {figure}, {100 * floor:.4g} % asked for."


def _kind(band: Band) -> str:
    return band.kind if not band.images else f"{band.kind}, {band.images} answers"


def _remedy(floor: float, ladder: tuple[Candidate, ...], judged: tuple[str, float], *, in_floats: bool) -> str:
    """What to do; a candidate that is not larger than the one that failed is not advised, whatever was predicted."""
    size = next((c.size for c in ladder if c.is_of(*judged)), 0)
    enough = [c for c in ladder if c.should_hold(floor)]
    larger = [c for c in enough if c.size > size]
    if larger:
        least = min(larger, key=lambda c: c.size)
        time = "" if least.latency is None else f", {format_duration(least.latency)} on the target"
        return f"The smallest predicted to hold is {least.title}: {format_bytes(least.size)}{time}."
    if in_floats:
        return "The teacher itself loses this much in integers: take --precision fp16, or give pictures with --images."
    return "No candidate is predicted to hold: give pictures with --images, more time, or lower --min-fidelity."
