"""Students by name for one teacher: those of the registry, and those cut out of the teacher."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from edgedafl.config import CompressConfig
from edgedafl.distill import settings_of
from edgedafl.distill.training.budget import rows_within_budget
from edgedafl.errors import EdgeDaflError, UnsupportedModelError, UsageError, reason_of
from edgedafl.latency import estimate_latency
from edgedafl.stages.calibrations import calibration_of
from edgedafl.stages.study import Study, study_teacher
from edgedafl.students import (
    KEPT,
    PRUNED,
    Budget,
    HintLoss,
    Pruner,
    Student,
    build_student,
    fit_student,
    images_at_once,
    module_layers,
    module_macs,
    pruned_width,
    usual_students,
)
from edgedafl.targets import Target
from edgedafl.teachers import Teacher

__all__ = [
    "BYTES_PER_WEIGHT",
    "StudentBuilder",
    "at_side",
    "builder",
    "choose_student",
    "hinted",
    "is_cut",
    "pruner_of",
]

_log = logging.getLogger(__name__)

BYTES_PER_WEIGHT = {"int8": 1.0, "fp16": 2.0, "fp32": 4.0}
_IMAGES = (96, 1500)
_UNSEEN = (16, 200)
_WHOLE = 256  # where nothing is fitted: to round weights and for quantization-aware training
# Multiply-accumulates of one look at all of them: seconds on two cores.
_EFFORT = 6e10
_UNSEEN_EFFORT = 2e9
_BROKEN = (IndexError, KeyError, RuntimeError, TypeError, ValueError)


def is_cut(name: str) -> bool:
    """Whether a student of this name is cut out of its teacher.

    Examples:
        >>> is_cut("kept:0.5"), is_cut("resnet8")
        (True, False)
    """
    return name.startswith((f"{PRUNED}:", f"{KEPT}:")) or name in (PRUNED, KEPT)


@dataclass(frozen=True)
class StudentBuilder:
    """Makes students by name.

    Attributes:
        teacher: Whose students.
        pruner: Cuts students out of it; where that cannot be done, it still gives the teacher itself.
            None where not even that can be read.
        reason: Why nothing can be cut.
    """

    teacher: Teacher
    pruner: Pruner | None = None
    reason: EdgeDaflError | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The students that suit this teacher."""
        spec = self.teacher.spec
        return usual_students(spec.macs, spec.input_shape, pruned=self.pruner is not None and self.pruner.cuts)

    def __call__(self, name: str) -> Student:
        """Build one; `kept:0.8@160` is fed images of 160 pixels instead of the teacher's size.

        Raises:
            UsageError: If there is no such student.
            UnsupportedModelError: If it is to be cut out of a teacher that cannot be cut.
        """
        cut, _, side = name.partition("@")
        if not is_cut(cut):
            return build_student(name, self.teacher.spec.input_shape, self.teacher.spec.num_classes)
        share = pruned_width(cut)
        if self.pruner is None or not (self.pruner.cuts or share == 1):
            reason = self.reason.message if self.reason else ""
            what = "is the teacher itself, which cannot be read" if share == 1 else "cuts channels out of the teacher"
            raise UnsupportedModelError(f"--student {name} {what}. {reason}", "Use --student auto, or resnet8.")
        student = self.pruner.student(cut)
        return student if not side else at_side(student, side)


def at_side(student: Student, side: str) -> Student:
    """The same student fed smaller images.

    Raises:
        UsageError: If the side is not a number, or the network takes images of one size only.

    Examples:
        >>> from edgedafl.students import build_student
        >>> at_side(build_student("resnet8", (3, 64, 64), 10), "48").spec.input_shape
        (3, 48, 48)
    """
    spec = student.spec
    if not side.isdigit() or not 8 <= int(side) < min(spec.input_shape[1:]):
        raise UsageError(
            f"--student {spec.name}@{side}: the side must be a number below {min(spec.input_shape[1:])}.",
            f"Write it like {spec.name}@160.",
        )
    height, width = spec.input_shape[1:]
    small = (spec.input_shape[0], int(side), round(int(side) * width / height))
    try:
        macs = module_macs(student.module, small)
    except _BROKEN as error:
        raise UsageError(
            f"--student {spec.name}@{side}: this network takes images of {height}x{width} only.",
            "Leave the side out.",
        ) from error
    return Student(student.module, replace(spec, name=f"{spec.name}@{side}", input_shape=small, macs=macs), None)


def builder(config: CompressConfig, teacher: Teacher, study: Study | None, target: Target) -> StudentBuilder:
    """The students of a configuration; the teacher is looked into only if they may come out of it.

    Examples:
        >>> from edgedafl.targets import find_target
        >>> from edgedafl.teachers import load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx")
        >>> build = builder(CompressConfig(student="lenet5-half"), teacher, None, find_target("rpi4"))
        >>> build("lenet5-half").spec.parameters
        15738
    """
    if study is None or (config.student != "auto" and not is_cut(config.student.partition("@")[0])):
        return StudentBuilder(teacher)
    if teacher.spec.access != "gradient":
        reason = UnsupportedModelError(f"This teacher gives {teacher.spec.access} only.")
        return StudentBuilder(teacher, reason=reason)
    if _is_whole(config.student):
        whole = _uncut(teacher, study)
        return StudentBuilder(teacher, whole, None if whole else UnsupportedModelError("Its network cannot be read."))
    try:
        return StudentBuilder(teacher, pruner_of(teacher, study, target))
    except UnsupportedModelError as error:
        whole = _uncut(teacher, study)
        if config.student == "auto":
            instead = (
                "The student is of another architecture and learns from scratch."
                if whole is None
                else "It keeps all of them."
            )
            _log.warning("%s %s", error.message, instead)
        return StudentBuilder(teacher, whole, error)


def _is_whole(name: str) -> bool:
    """Whether a student is the teacher itself, at any size of images."""
    cut = name.partition("@")[0]
    return is_cut(cut) and pruned_width(cut) == 1


def choose_student(
    config: CompressConfig, teacher: Teacher, target: Target, precision: str, build: StudentBuilder
) -> Student:
    """The student that a configuration names; of those from scratch the one that fits its budget best.

    Raises:
        UsageError: If there is no such student, or none fits.
        UnsupportedModelError: If it is to be cut out of a teacher that cannot be cut.

    Examples:
        >>> from edgedafl.targets import find_target
        >>> from edgedafl.teachers import load_teacher
        >>> teacher, target = load_teacher("examples/mnist/teacher.onnx"), find_target("rpi4")
        >>> config = CompressConfig(student="lenet5-half")
        >>> choose_student(config, teacher, target, "int8", StudentBuilder(teacher)).spec.name
        'lenet5-half'
    """
    if config.student != "auto":
        return hinted(build(config.student), config, teacher)
    model = calibration_of(config.device, target)

    def latency_of(student: Student) -> float:
        layers = module_layers(student.module, teacher.spec.input_shape)
        return estimate_latency(layers, target, precision, model).median / 1e9

    candidate = fit_student(
        build.names,
        build,
        teacher_parameters=teacher.spec.parameters,
        budget=Budget(config.max_size, config.max_latency),
        bytes_per_weight=BYTES_PER_WEIGHT[precision],
        latency_of=latency_of if config.max_latency is not None else None,
    )
    return hinted(build(candidate.spec.name), config, teacher)


def hinted(student: Student, config: CompressConfig, teacher: Teacher) -> Student:
    """The student with its teacher's feature maps beside its own, where both can be looked into.

    Examples:
        >>> from edgedafl.teachers import load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx")
        >>> student = build_student("lenet5-half", (1, 32, 32), 10)
        >>> hinted(student, CompressConfig(method="adversarial"), teacher) is student  # small teachers need no hints
        True
    """
    if student.layers is not None or teacher.spec.access != "gradient" or teacher.max_queries is not None:
        return student
    if not settings_of(config.method, teacher)[1].recipe.layers:
        return student
    try:
        return replace(student, layers=HintLoss(teacher.network(), student.module, student.spec.input_shape))
    except (UnsupportedModelError, *_BROKEN) as error:
        _log.debug("The teacher's feature maps are not hints: %s", reason_of(error))
        return student


def pruner_of(teacher: Teacher, study: Study | None = None, target: Target | None = None) -> Pruner:
    """Look at what a teacher's layers read on synthetic images, and on the user's pictures.

    Args:
        teacher: Whose channels.
        study: Of it; made where there is none yet.
        target: Whose channel counts are preferred.

    Raises:
        UnsupportedModelError: If its layers cannot be read, or no channel can be cut.

    Examples:
        >>> from edgedafl.teachers import TeacherOptions, load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx", TeacherOptions(mean=(0.1307,), std=(0.3081,)))
        >>> student = pruner_of(teacher).student("kept:0.25")
        >>> student.spec.parameters < 0.3 * teacher.spec.parameters
        True
    """
    try:
        return _pruner(teacher, study or study_teacher(teacher), target)
    except _BROKEN as error:
        # Graphs of other people hold more than any rule foresees; a student from scratch needs none.
        raise UnsupportedModelError(f"The teacher's channels cannot be followed: {reason_of(error)}") from error


def _uncut(teacher: Teacher, study: Study) -> Pruner | None:
    """The teacher itself as the one student; None where it cannot be read."""
    spec = teacher.spec
    try:
        graph = teacher.network()
        images = study.fitting_images(_WHOLE)
        return Pruner.uncut(graph, images, spec.num_classes)
    except (UnsupportedModelError, *_BROKEN) as error:
        _log.debug("The teacher itself is not a student: %s", reason_of(error))
        return None


def _pruner(teacher: Teacher, study: Study, target: Target | None) -> Pruner:
    spec = teacher.spec
    graph = teacher.network()
    most = images_at_once(graph, spec.input_shape)
    images = study.fitting_images(_within(_IMAGES, _EFFORT, spec.macs))
    unseen = study.fitting_images(min(most, _within(_UNSEEN, _UNSEEN_EFFORT, spec.macs)))
    multiple = 1 if target is None or target.runtime != "tensorrt" else target.channel_multiple
    promised = teacher.promised_moments(graph)
    pruner = Pruner.of(graph, images, unseen, spec.num_classes, promised=promised, multiple=multiple)
    logits = pruner.student(f"{PRUNED}:0.5", fitted=False).module(images[:2])
    if logits.shape != (2, spec.num_classes):
        raise ValueError(f"cut in half it answers shape {tuple(logits.shape)} for two images")
    return pruner


def _within(limits: tuple[int, int], effort: float, macs: int) -> int:
    return rows_within_budget(macs, effort=effort, fewest=limits[0], most=limits[1])
