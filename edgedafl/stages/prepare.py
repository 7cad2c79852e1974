"""Before anything is trained: teacher, target, student, and a first look at all three."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgedafl import __version__
from edgedafl.callbacks import OnMessage, silent
from edgedafl.config import CompressConfig
from edgedafl.distill import settings_of, with_estimated_gradients
from edgedafl.distill.monitoring.preflight import check_teacher
from edgedafl.errors import UsageError
from edgedafl.files import digest_of
from edgedafl.files.class_names import read_class_names
from edgedafl.files.labelled import LabelledSource
from edgedafl.files.pictures import read_pictures
from edgedafl.graph.packed import ALL_BITS
from edgedafl.runs import Preflight, RunDirectory
from edgedafl.stages.candidates import Candidates, possible_bits
from edgedafl.stages.check_input import check_input, look_at_pictures
from edgedafl.stages.ladder import Ladder, build_ladder
from edgedafl.stages.students import StudentBuilder, builder, choose_student, hinted
from edgedafl.stages.study import Study, study_teacher
from edgedafl.stages.training_gain import student_steps
from edgedafl.students import KEPT, Student
from edgedafl.targets import Target, find_target
from edgedafl.teachers import Teacher, TeacherOptions, load_teacher
from edgedafl.units import format_bytes

__all__ = ["Plan", "labelled_of", "options_of", "prepare"]

_log = logging.getLogger(__name__)

# Fewer steps mend nothing and may spoil what the refit has made.
_LEAST_STEPS = 60
_IMAGES = 256


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        source: The teacher as the user named it.
        config: The resolved configuration.
        target: The deployment target.
        precision: Precision of the artifact.
        teacher: The loaded teacher.
        student: The untrained student.
        trains: Whether it is trained: not where the time allows next to no step.
        seconds: Of training; None means no limit.
        study: What the teacher answered to synthetic images; None where it may not be asked.
        ladder: The candidates; None where the student was named or learns from scratch.
        build: Makes students.
        preflight: What the teacher answers to procedural images.
        identity: Digest of everything the trained student depends on.
        classes: Names of the classes; none where the user gives none.
        weight_bits: Mean bits of a weight in an int8 artifact's file where there is no ladder; the candidates
            of a ladder have their own.
        place: Of the student on the ladder; 0 where there is none.
    """

    source: str
    config: CompressConfig
    target: Target
    precision: str
    teacher: Teacher
    student: Student
    trains: bool
    seconds: float | None
    study: Study | None
    ladder: Ladder | None
    build: StudentBuilder
    preflight: Preflight
    identity: str
    classes: tuple[str, ...] = ()
    weight_bits: float = ALL_BITS
    place: int = 0

    @property
    def artifact_bits(self) -> float:
        """Mean bits of a weight in the file of the student's artifact."""
        return self.weight_bits if self.ladder is None else self.ladder.candidates[self.place].weight_bits

    @property
    def fitting(self) -> Tensor:
        """Images in model space that layers were fitted on, at the teacher's size."""
        assert self.study is not None
        pruner = self.build.pruner
        return self.study.fitting_images(_IMAGES) if pruner is None else pruner.images

    def at(self, place: int, seconds: float | None) -> Plan:
        """The same plan for the candidate at a place of its ladder, with what time is left."""
        assert self.ladder is not None
        name = self.ladder.candidates[place].name
        known = self.student if name == self.student.spec.name else None
        student = known or hinted(self.build(name), self.config, self.teacher)
        trains = _trains(student, self.study, seconds, self.config, self.teacher)
        identity = digest_of([self.identity, name])
        return replace(self, student=student, place=place, seconds=seconds, trains=trains, identity=identity)

    def at_place(self, place: int) -> Plan:
        """The plan for the candidate at a place of the ladder."""
        return self if self.ladder is None else self.at(place, self.config.seconds)

    def begun(self, run: RunDirectory) -> Plan:
        """The plan for the candidate that an earlier start of this run came to, or for the chosen one."""
        if self.ladder is None:
            return self
        record, candidates = run.record(), self.ladder.candidates
        same = [place for place, c in enumerate(candidates) if c.name == record.candidate]
        nearest = min(same, key=lambda place: abs(candidates[place].weight_bits - record.weight_bits), default=None)
        return self.at(self.place if nearest is None else nearest, self.config.seconds)


def options_of(config: CompressConfig) -> TeacherOptions:
    """What the configuration declares about the teacher.

    Examples:
        >>> options_of(CompressConfig(input_range=(0.0, 255.0))).input_range
        (0.0, 255.0)
    """
    return TeacherOptions(
        input_name=config.input_name,
        output_name=config.output_name,
        input_shape=config.input_shape,
        layout=config.layout,
        convention=config.preprocess,
        input_range=config.input_range,
        mean=config.input_mean,
        std=config.input_std,
        weights=config.weights,
        access=None if config.access == "auto" else config.access,
        task=config.task,
        classes=config.classes,
        max_queries=config.max_queries,
        trust=config.trust,
        threads=config.threads or 1,
        timeout=config.timeout,
        token_variable=config.token_env,
    )


def labelled_of(config: CompressConfig) -> LabelledSource | None:
    """The user's labelled pictures; None where there are none.

    Examples:
        >>> labelled_of(CompressConfig())
    """
    return None if config.eval is None else LabelledSource(config.eval, config.classes_file)


def prepare(source: str, config: CompressConfig, on_message: OnMessage = silent) -> Plan:
    """Load the teacher, ask it a few questions, choose the student.

    Args:
        source: The teacher as the user names it.
        config: The resolved configuration.
        on_message: Called with the name of what begins.

    Raises:
        EdgeDaflError: One of its children; nothing has been written yet.

    Examples:
        >>> config = CompressConfig(student="lenet5-half", input_mean=(0.1307,), input_std=(0.3081,))
        >>> prepare("examples/mnist/teacher.onnx", config).student.spec.parameters
        15738
    """
    target = find_target(config.target)
    precision = target.precision if config.precision == "auto" else config.precision
    possible_bits(config, target, precision)  # refused before the teacher is asked anything
    teacher = load_teacher(source, options_of(config))
    settings_of(config.method, with_estimated_gradients(config.method, teacher))  # refused before anything is written
    torch.manual_seed(config.seed)
    names = config.classes_file
    classes = () if names is None else read_class_names(names, teacher.spec.num_classes)
    labelled = labelled_of(config)
    if labelled is not None:
        check_input(teacher, labelled)
    pictures = None if config.images is None else read_pictures(config.images, teacher.spec.input_shape)
    if pictures is not None:
        look_at_pictures(teacher, pictures)
    preflight = check_teacher(teacher)
    on_message("ladder")
    study = study_teacher(teacher, pictures)
    build = builder(config, teacher, study, target)
    ladder = _ladder(config, build, study, target, precision)
    if ladder is not None:
        student = hinted(build(ladder.candidates[ladder.chosen].name), config, teacher)
    else:
        student = choose_student(config, teacher, target, precision, build)
    bits = _bits_of_named(config, build, study, target, precision)
    identity = digest_of(
        {
            "teacher": teacher.spec.to_dict() | {"source": ""},
            # Which candidate is taken may hang on how fast this machine is at the moment.
            "student": student.spec.to_dict() if ladder is None else [config.max_size, config.max_latency],
            **({} if config.weight_bits is None else {"weight_bits": config.weight_bits}),
            "floor": config.min_fidelity,
            "method": config.method,
            "images": None if pictures is None else digest_of([str(config.images), pictures.found]),
            "max_queries": config.max_queries,
            "seconds": config.seconds,
            "steps": config.steps,
            "seed": config.seed,
            "version": __version__,
        }
    )
    seconds = config.seconds
    trains = _trains(student, study, seconds, config, teacher)
    return Plan(
        source, config, target, precision, teacher, student, trains, seconds, study, ladder, build, preflight, identity,
        classes, bits, 0 if ladder is None else ladder.chosen,
    )  # fmt: skip


def _bits_of_named(
    config: CompressConfig, build: StudentBuilder, study: Study, target: Target, precision: str
) -> float:
    """Bits of a weight where the student is named: as many as a limit on size leaves a part of the teacher.

    Raises:
        UsageError: If the fewest are too many.
    """
    bits = possible_bits(config, target, precision)
    if bits == (ALL_BITS,) or build.pruner is None or not config.student.startswith(f"{KEPT}:"):
        return bits[0]
    candidates = Candidates(build, study, target, precision, config)
    found = candidates.outline(config.student)
    if config.max_size is not None and found.size > config.max_size:
        raise UsageError(
            f"--student {config.student} takes about {format_bytes(found.size)} in weights of {found.weight_bits:.2g} "
            f"bits; --max-size is {format_bytes(config.max_size)}.",
            "Raise the limit to at least that, or leave --student out: `compress` cuts what does not fit.",
        )
    candidates.band_of_whole(found.weight_bits)  # the verdict is told from it
    return found.weight_bits


def _ladder(
    config: CompressConfig, build: StudentBuilder, study: Study, target: Target, precision: str
) -> Ladder | None:
    """Candidates; None where the student is named, or only one from scratch comes within the limits."""
    if config.student != "auto" or build.pruner is None:
        return None
    try:
        return build_ladder(build, study, target, precision, config)
    except UsageError:
        if build.pruner.cuts:
            raise
        _log.warning(
            "Whole, the teacher is beyond the limits: the student is of another architecture and learns from scratch."
        )
        return None


def _trains(
    student: Student, study: Study | None, seconds: float | None, config: CompressConfig, teacher: Teacher
) -> bool:
    """Whether training is worth its time: a student that begins as its teacher has something to lose."""
    spec = student.spec
    if study is None or not spec.inherited:
        return True
    if spec.width >= 1 or spec.input_shape != teacher.spec.input_shape:
        return False
    if config.steps is not None:
        return True
    # Of graphs whose shapes only running tells, the teacher's arithmetic is not known.
    share = min(1.0, spec.macs / teacher.spec.macs) if teacher.spec.macs else 1.0
    return student_steps(seconds, study, share) >= _LEAST_STEPS
