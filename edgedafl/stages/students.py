"""Students by name for one teacher: those of the registry, and those cut out of the teacher."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from edgedafl.config import CompressConfig
from edgedafl.distill import Companions, settings_of
from edgedafl.distill.budget import affordable
from edgedafl.distill.priors import FAMILIES
from edgedafl.errors import EdgeDaflError, UnsupportedModelError, reason_of
from edgedafl.latency import estimate_latency
from edgedafl.stages.calibrations import calibration_of
from edgedafl.students import (
    PRUNED,
    Budget,
    Hints,
    Pruner,
    Student,
    build_student,
    fit_student,
    module_layers,
    pruned_width,
    usual_students,
)
from edgedafl.targets import Target
from edgedafl.teachers import Teacher

__all__ = ["StudentBuilder", "builder", "choose_student", "pruner_of"]

_log = logging.getLogger(__name__)

_BYTES_PER_WEIGHT = {"int8": 1.0, "fp16": 2.0, "fp32": 4.0}
_IMAGES = (100, 1000)
_UNSEEN = (20, 200)
_TRIAL = (20, 300)
_TRIED = 0.5
# Of a limit on queries the look takes at most this share; what it asks is not learned from.
_SHARE = 0.05
_BROKEN = (IndexError, KeyError, RuntimeError, TypeError, ValueError)
_BATCH = (4, 100)
# Multiply-accumulates that the look at a teacher may take on all images, and in one batch.
_EFFORT = 3e11
_AT_ONCE = 2e9


@dataclass(frozen=True)
class StudentBuilder:
    """Makes students by name.

    Attributes:
        teacher: Whose students.
        pruner: Cuts students out of it, where that can be done.
        reason: Why it cannot.
    """

    teacher: Teacher
    pruner: Pruner | None = None
    reason: EdgeDaflError | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The students that suit this teacher."""
        spec = self.teacher.spec
        return usual_students(spec.macs, spec.input_shape, pruned=self.pruner is not None)

    def __call__(self, name: str) -> Student:
        """Build one.

        Raises:
            UsageError: If there is no such student.
            UnsupportedModelError: If it is to be cut out of a teacher that cannot be cut.
        """
        width = pruned_width(name)
        if width is None:
            return build_student(name, self.teacher.spec.input_shape, self.teacher.spec.num_classes)
        if self.pruner is None:
            reason = self.reason.message if self.reason else ""
            raise UnsupportedModelError(
                f"--student {name} cuts channels out of the teacher. {reason}", "Use --student auto, or resnet8."
            )
        return self.pruner.student(width)


def builder(config: CompressConfig, teacher: Teacher) -> StudentBuilder:
    """The students of a configuration; the teacher is looked into only if they may come out of it."""
    if config.student != "auto" and not config.student.startswith(PRUNED):
        return StudentBuilder(teacher)
    if teacher.spec.access != "gradient":
        reason = UnsupportedModelError(f"This teacher gives {teacher.spec.access} only.")
        return StudentBuilder(teacher, reason=reason)
    try:
        return StudentBuilder(teacher, pruner_of(teacher))
    except UnsupportedModelError as error:
        if config.student == "auto":
            _log.warning("%s The student is of another make and learns from scratch.", error.message)
        return StudentBuilder(teacher, reason=error)


def choose_student(config: CompressConfig, teacher: Teacher, target: Target, precision: str) -> Student:
    """The student that a configuration names, or the one that fits its budget best.

    Raises:
        UsageError: If there is no such student, or none fits.
        UnsupportedModelError: If it is to be cut out of a teacher that cannot be cut.
    """
    student = _chosen(config, teacher, target, precision)
    if student.layers is not None or teacher.spec.access != "gradient" or teacher.max_queries is not None:
        return student
    _, settings = settings_of(config.method, teacher)
    return _hinted(student, teacher) if settings.recipe.layers else student


def _hinted(student: Student, teacher: Teacher) -> Student:
    """The student with its teacher's feature maps beside its own, where both can be looked into."""
    try:
        return replace(student, layers=Hints(teacher.network(), student.module, student.spec.input_shape))
    except (UnsupportedModelError, *_BROKEN) as error:
        _log.debug("The teacher's feature maps are no hints: %s", reason_of(error))
        return student


def _chosen(config: CompressConfig, teacher: Teacher, target: Target, precision: str) -> Student:
    spec = teacher.spec
    build = builder(config, teacher)
    if config.student != "auto":
        return build(config.student)

    model = calibration_of(config.device, target)

    def latency_of(student: Student) -> float:
        layers = module_layers(student.module, spec.input_shape)
        return estimate_latency(layers, target, precision, model).median / 1e9

    candidate = fit_student(
        build.names,
        build,
        teacher_parameters=spec.parameters,
        budget=Budget(config.max_size, config.max_latency),
        bytes_per_weight=_BYTES_PER_WEIGHT[precision],
        unexplained=build.pruner.unexplained if build.pruner is not None else None,
        latency_of=latency_of if config.max_latency is not None else None,
    )
    return build(candidate.spec.name)


def pruner_of(teacher: Teacher) -> Pruner:
    """Look at what a teacher's layers read on procedural images of the families that tell most about it.

    Raises:
        UnsupportedModelError: If its layers cannot be read, or no channel can be cut.
    """
    try:
        return _pruner(teacher)
    except _BROKEN as error:
        # Graphs of other people hold more than any rule foresees; a student from scratch needs none.
        raise UnsupportedModelError(f"The teacher's channels cannot be followed: {reason_of(error)}") from error


def _pruner(teacher: Teacher) -> Pruner:
    macs = teacher.spec.macs
    trial = _within(_TRIAL, _EFFORT / len(FAMILIES), macs)
    asked = trial * len(FAMILIES)
    if teacher.remaining is not None and asked > _SHARE * teacher.remaining:
        raise UnsupportedModelError(
            f"Looking into the teacher takes {asked} of the {teacher.remaining} queries that are left."
        )
    graph = teacher.network()
    companions = Companions(teacher.spec, 1, trial, "cpu")
    companions.tune(teacher)
    images = companions.draw(_within(_IMAGES, _EFFORT, macs))
    unseen = companions.draw(_within(_UNSEEN, _EFFORT / 10, macs))
    pruner = Pruner.of(graph, images, unseen, teacher.spec.num_classes, batch=_within(_BATCH, _AT_ONCE, macs))
    logits = pruner.student(_TRIED).module(images[:2])
    if logits.shape != (2, teacher.spec.num_classes):
        raise ValueError(f"cut in half it answers shape {tuple(logits.shape)} for two images")
    return pruner


def _within(limits: tuple[int, int], effort: float, macs: int) -> int:
    return affordable(macs, effort=effort, fewest=limits[0], most=limits[1])
