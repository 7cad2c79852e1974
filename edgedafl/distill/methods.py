"""Methods by name, and which of them suits a teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from edgedafl.distill.synthesizers import (
    AdversarialSettings,
    AdversarialSynthesizer,
    BlackBoxSettings,
    BlackBoxSynthesizer,
    DaflSettings,
    DaflSynthesizer,
    DisagreementSynthesizer,
    FastSettings,
    FastSynthesizer,
    InversionSettings,
    InversionSynthesizer,
    ProceduralSettings,
    ProceduralSynthesizer,
    Synthesizer,
    dfad,
    dfq,
    zskt,
)
from edgedafl.distill.synthesizers.zeroth_order import ZerothOrderTeacher
from edgedafl.errors import UsageError, did_you_mean
from edgedafl.teachers.base import Teacher, TeacherSpec

__all__ = ["METHODS", "Method", "choose_method", "make_synthesizer", "settings_of", "with_estimated_gradients"]


# Multiply-accumulates per image: a CIFAR ResNet-20 has 41 million.
_LARGE = 30_000_000


@dataclass(frozen=True)
class Method:
    """One entry of the registry.

    Attributes:
        build: Called with a teacher, `settings` and `device`.
        settings: The settings that suit a teacher.
        text: One line for users.
        gradient: Whether the teacher must give gradients.
        batch_norm: Whether it must have BatchNorm statistics.
        inherited: The same settings for a student that begins as its teacher.
    """

    build: Callable[..., Synthesizer]
    settings: Callable[[TeacherSpec], Any]
    text: str
    gradient: bool = True
    batch_norm: bool = False
    inherited: Callable[[Any], Any] = lambda settings: settings


METHODS: dict[str, Method] = {
    "adversarial": Method(
        AdversarialSynthesizer,
        AdversarialSettings.of,
        "procedural images and a generator against teacher and student",
    ),
    "fast": Method(
        FastSynthesizer,
        lambda spec: FastSettings(),
        "meta-learned generator on BatchNorm statistics (Fast-DFKD)",
        batch_norm=True,
        inherited=FastSettings.inherited,
    ),
    "inversion": Method(
        InversionSynthesizer, lambda spec: InversionSettings(), "trained pixels (DeepInversion)", batch_norm=True
    ),
    "procedural": Method(
        ProceduralSynthesizer,
        ProceduralSettings.of,
        "procedural images alone, for students cut out of their teacher",
        gradient=False,
    ),
    "dafl": Method(DaflSynthesizer, DaflSettings.of, "DAFL as published"),
    "dfad": Method(DisagreementSynthesizer, dfad, "data-free adversarial distillation as published"),
    "zskt": Method(DisagreementSynthesizer, zskt, "zero-shot knowledge transfer, without attention"),
    "dfq": Method(DisagreementSynthesizer, dfq, "DFQ's generator as published"),
    "blackbox": Method(
        BlackBoxSynthesizer,
        lambda spec: BlackBoxSettings(),
        "scores or labels only, no query for gradients",
        gradient=False,
    ),
    "zeroth-order": Method(
        AdversarialSynthesizer, AdversarialSettings.of, "gradients estimated from scores", gradient=False
    ),
}


def choose_method(spec: TeacherSpec, *, gradient: bool, inherited: bool = False) -> str:
    """What `auto` stands for: the most that the teacher's capabilities allow.

    Large teachers see photographs, which no procedural image resembles: there a generator led by
    BatchNorm statistics comes closest. For small ones the default learns more in the same time, with
    those statistics as one more term. A student that begins as a teacher of colour images mends what the
    cut broke on whatever excites its layers: it takes procedural images, and ten times the steps. Of grey
    images a generator shows more than they do.

    Args:
        spec: Of the teacher.
        gradient: Whether its gradients may be used.
        inherited: Whether the student begins with its teacher's weights.

    Examples:
        >>> from edgedafl.teachers import load_teacher
        >>> spec = load_teacher("examples/mnist/teacher.onnx").spec
        >>> choose_method(spec, gradient=True), choose_method(spec, gradient=False)
        ('adversarial', 'blackbox')
    """
    if not gradient:
        return "blackbox"
    if inherited and spec.input_shape[0] > 1:
        return "procedural"
    return "fast" if spec.batch_norms and spec.macs >= _LARGE else "adversarial"


def settings_of(method: str, teacher: Teacher, *, inherited: bool = False) -> tuple[str, Any]:
    """A method's name (never `auto`) and its settings for a teacher.

    Args:
        method: As asked for.
        teacher: The teacher.
        inherited: Whether the student begins with its weights.

    Raises:
        UsageError: If the method needs what this teacher does not give.

    Examples:
        >>> from edgedafl.teachers import load_teacher
        >>> name, settings = settings_of("dafl", load_teacher("examples/mnist/teacher.onnx"))
        >>> name, type(settings).__name__
        ('dafl', 'DaflSettings')
    """
    gradient = teacher.spec.access == "gradient" or isinstance(teacher, ZerothOrderTeacher)
    name = choose_method(teacher.spec, gradient=gradient, inherited=inherited) if method == "auto" else method
    entry = _entry(name)
    if entry.gradient and not gradient:
        other = "" if teacher.spec.access == "labels" else ", or zeroth-order for a teacher that is cheap to ask"
        raise UsageError(
            f"--method {name} needs the teacher's gradients; this teacher gives {teacher.spec.access} only.",
            f"Use --method auto{other}.",
        )
    if entry.batch_norm and not teacher.spec.batch_norms:
        raise UsageError(
            f"--method {name} needs the statistics of BatchNorm layers; {teacher.spec.source} has none left.",
            "Export the teacher without folding its BatchNorms, or use --method auto.",
        )
    settings = entry.settings(teacher.spec)
    return name, entry.inherited(settings) if inherited else settings


def _entry(name: str) -> Method:
    if name not in METHODS:
        nearest = did_you_mean(name, METHODS, most=1)
        raise UsageError(f"There is no method {name!r}.", f"{nearest}Known: auto, {', '.join(METHODS)}.")
    return METHODS[name]


def make_synthesizer(
    method: str, teacher: Teacher, device: torch.device | str = "cpu", *, inherited: bool = False
) -> tuple[str, Synthesizer]:
    """The synthesizer of a method name, and the name that `auto` stands for.

    Args:
        method: As asked for.
        teacher: The teacher.
        device: Where to train.
        inherited: Whether the student begins with the teacher's weights.

    Raises:
        UsageError: If the method needs what this teacher does not give.

    Examples:
        >>> from edgedafl.teachers import load_teacher
        >>> name, synthesizer = make_synthesizer("auto", load_teacher("examples/mnist/teacher.onnx"))
        >>> name, synthesizer.recipe.student_batch
        ('adversarial', 128)
    """
    name, settings = settings_of(method, teacher, inherited=inherited)
    return name, METHODS[name].build(teacher, settings=settings, device=device)


def with_estimated_gradients(method: str, teacher: Teacher) -> Teacher:
    """The teacher as a method sees it: with estimated gradients for `zeroth-order`.

    Raises:
        UsageError: If only labels are known: they do not change under small steps.

    Examples:
        >>> from edgedafl.teachers import load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx")
        >>> with_estimated_gradients("adversarial", teacher) is teacher
        True
    """
    if method != "zeroth-order" or teacher.spec.access == "gradient":
        return teacher
    if teacher.spec.access == "labels":
        raise UsageError(
            "--method zeroth-order needs scores; this teacher gives labels only.", "Use --method blackbox."
        )
    return ZerothOrderTeacher(teacher)
