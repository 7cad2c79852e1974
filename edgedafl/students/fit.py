"""Choosing architecture and width for a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgedafl.errors import UsageError
from edgedafl.students.base import Student
from edgedafl.students.registry import build_student
from edgedafl.units import format_bytes, format_duration

__all__ = ["Budget", "Candidate", "fit_student", "students_below"]

# Graph structure, scales and names around the weights of an exported int8 student.
_FILE_OVERHEAD = 12_000
_OVERHEAD_SHARE = 0.05
_WIDTHS = (0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0)
_TINY_TEACHER_MACS = 5_000_000
_SMALL_TEACHER_MACS = 30_000_000
_LENET_SIDE = 40


@dataclass(frozen=True)
class Budget:
    """Upper limits; None is no limit.

    Attributes:
        size: Bytes of the deployed artifact.
        latency: Seconds per image, as `latency_of` counts them.
    """

    size: int | None = None
    latency: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A student that was considered."""

    student: Student
    size: int
    latency: float | None


def fit_student(
    *,
    teacher_parameters: int,
    teacher_macs: int,
    input_shape: tuple[int, int, int],
    num_classes: int,
    budget: Budget,
    bytes_per_weight: float,
    latency_of: Callable[[Student], float] | None = None,
) -> Candidate:
    """The largest student within the budget and within a quarter of the teacher.

    More capacity imitates better, so the largest candidate wins. Without a size limit the student
    stays near a quarter of the teacher's weights, which keeps its int8 artifact below an eighth
    of a float teacher; a size limit of the user's own replaces that rule.

    Args:
        teacher_parameters: Weights of the teacher; 0 where nobody knows (a server).
        teacher_macs: Multiply-accumulates of the teacher per image; 0 where nobody knows.
        input_shape: (C, H, W).
        num_classes: K.
        budget: The user's limits.
        bytes_per_weight: 1 for int8, 2 for fp16, 4 for fp32 artifacts.
        latency_of: Cost in seconds; needed for a latency limit.

    Raises:
        UsageError: If nothing fits; the message names the smallest that would.
    """
    if not teacher_parameters:
        teacher_parameters, teacher_macs = _usual_size(input_shape)
    candidates = [
        Candidate(student, _size_of(student, bytes_per_weight), latency_of(student) if latency_of else None)
        for student in _ladder(teacher_macs, input_shape, num_classes)
    ]
    within = [c for c in candidates if _fits(c, budget)]
    if not within:
        raise _nothing_fits(candidates, budget)
    cap = teacher_parameters // 4 if budget.size is None else teacher_parameters
    modest = [c for c in within if c.student.spec.parameters <= 1.1 * cap]
    if not modest:
        return min(within, key=lambda c: c.student.spec.parameters)
    return max(modest, key=lambda c: (c.student.spec.parameters, -c.student.spec.macs))


def students_below(parameters: int, macs: int, input_shape: tuple[int, int, int], num_classes: int) -> tuple[str, ...]:
    """Names of all students that `fit_student` would consider and that are smaller than a teacher.

    Args:
        parameters: Weights of the teacher; 0 where nobody knows.
        macs: Multiply-accumulates of the teacher per image; 0 where nobody knows.
        input_shape: (C, H, W).
        num_classes: K.
    """
    if not parameters:
        parameters, macs = _usual_size(input_shape)
    ladder = list(_ladder(macs, input_shape, num_classes))
    smaller = [s.spec.name for s in ladder if s.spec.parameters < parameters]
    return tuple(smaller or [min(ladder, key=lambda s: s.spec.parameters).spec.name])


def _usual_size(input_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Weights and MACs of a usual classifier of such images: a LeNet-5, or a small ResNet."""
    channels, height, width = input_shape
    small = channels == 1 and max(height, width) <= _LENET_SIDE
    return (250_000, 1_000_000) if small else (1_000_000, 100_000_000)


def _ladder(teacher_macs: int, input_shape: tuple[int, int, int], num_classes: int) -> Iterator[Student]:
    """LeNets for LeNet-sized teachers, plain networks for small ones, residual networks for all others.

    What is cheap is also taught more in the same time, and looks more like the teacher.
    """
    tiny = 0 < teacher_macs < _TINY_TEACHER_MACS and 16 <= min(input_shape[1:]) <= _LENET_SIDE
    small = 0 < teacher_macs < _SMALL_TEACHER_MACS
    for width in _WIDTHS:
        if tiny:
            name = "lenet5-half" if width == 0.5 else f"lenet5:{width:g}"
            yield build_student(name, input_shape, num_classes)
            continue
        for architecture in ("convnet",) if small else ("resnet8", "resnet20", "resnet18"):
            yield build_student(f"{architecture}:{width:g}", input_shape, num_classes)


def _size_of(student: Student, bytes_per_weight: float) -> int:
    weights = student.spec.parameters * bytes_per_weight
    return int(weights * (1 + _OVERHEAD_SHARE)) + _FILE_OVERHEAD


def _fits(candidate: Candidate, budget: Budget) -> bool:
    if budget.size is not None and candidate.size > budget.size:
        return False
    return budget.latency is None or candidate.latency is None or candidate.latency <= budget.latency


def _nothing_fits(candidates: list[Candidate], budget: Budget) -> UsageError:
    smallest = min(candidates, key=lambda c: c.size)
    parts = []
    if budget.size is not None and smallest.size > budget.size:
        name = smallest.student.spec.name
        parts.append(f"the smallest student ({name}) needs about {format_bytes(smallest.size)}")
    timed = [c for c in candidates if c.latency is not None]
    if budget.latency is not None and timed:
        fastest = min(timed, key=lambda c: c.latency or 0.0)
        parts.append(f"the fastest ({fastest.student.spec.name}) takes about {format_duration(fastest.latency or 0)}")
    limits = [
        f"--max-size {format_bytes(budget.size)}" if budget.size is not None else "",
        f"--max-latency {format_duration(budget.latency)}" if budget.latency is not None else "",
    ]
    return UsageError(
        f"No student fits {' and '.join(filter(None, limits))}: {'; '.join(parts) or 'not both at once'}.",
        "Raise the limit to at least that.",
    )
