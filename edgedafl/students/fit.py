"""Choosing architecture and width for a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgedafl.errors import UsageError
from edgedafl.students.base import PRUNED, Student, StudentSpec
from edgedafl.units import format_bytes, format_duration

__all__ = ["Budget", "Candidate", "fit_student", "modest_share", "students_below", "usual_students"]

# Graph structure, scales and names around the weights of an exported int8 student.
_FILE_OVERHEAD = 12_000
_OVERHEAD_SHARE = 0.05
_WIDTHS = (0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0)
_PRUNED_WIDTHS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
# Share of a tiny teacher's weights that are kept at most.
_MOST_OF_TINY = 0.6
_TOLERANCE = 1.1
_TINY_TEACHER_MACS = 5_000_000
_SMALL_TEACHER_MACS = 30_000_000
_LENET_SIDE = 40


@dataclass(frozen=True)
class Budget:
    """Upper limits; None means no limit.

    Attributes:
        size: Bytes of the deployed artifact.
        latency: Seconds per image, as `latency_of` counts them.
    """

    size: int | None = None
    latency: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A student that was considered."""

    spec: StudentSpec
    size: int
    latency: float | None


def fit_student(
    names: Sequence[str],
    build: Callable[[str], Student],
    *,
    teacher_parameters: int,
    budget: Budget,
    bytes_per_weight: float,
    latency_of: Callable[[Student], float] | None = None,
) -> Candidate:
    """The largest student within the budget and within a quarter of the teacher.

    More capacity imitates better, so the largest candidate wins. Without a size limit the student
    stays near a quarter of the teacher's weights, which keeps its int8 artifact below an eighth
    of a float teacher; a size limit of the user's own replaces that rule. Of tiny teachers more is
    kept: where weights take less room than a file's own structure, cutting them saves nothing.

    Args:
        names: Students to consider, see `usual_students`.
        build: Makes a student by name.
        teacher_parameters: Weights of the teacher; 0 where it is unknown (a server).
        budget: The user's limits.
        bytes_per_weight: 1 for int8, 2 for fp16, 4 for fp32 artifacts.
        latency_of: Cost in seconds; needed for a latency limit.

    Raises:
        UsageError: If nothing fits; the message names the smallest that would.

    Examples:
        >>> from edgedafl.students import build_student
        >>> names, free = ("resnet8:0.5", "resnet8", "resnet14"), Budget(None, None)
        >>> build = lambda name: build_student(name, (3, 32, 32), 10)
        >>> fit_student(names, build, teacher_parameters=400_000, budget=free, bytes_per_weight=1.0).spec.name
        'resnet8'
    """
    candidates = [_candidate(build(name), bytes_per_weight, latency_of) for name in names]
    within = [c for c in candidates if _fits(c, budget)]
    if not within:
        raise _nothing_fits(candidates, budget)
    cap = teacher_parameters or _usual_size(candidates[0].spec.input_shape)[0]
    if budget.size is None:
        cap = int(cap * modest_share(cap, bytes_per_weight))
    modest = [c for c in within if c.spec.parameters <= _TOLERANCE * cap]
    if not modest:
        return min(within, key=lambda c: c.spec.parameters)
    return max(modest, key=lambda c: (c.spec.parameters, -c.spec.macs))


def modest_share(parameters: int, bytes_per_weight: float) -> float:
    """Share of a teacher's weights below which its students do not go unless they are told to.

    A quarter; of tiny teachers more, whose files hold more structure than weights.

    Args:
        parameters: Weights of the teacher.
        bytes_per_weight: Of the artifact.

    Examples:
        >>> modest_share(1_000_000, 1.0), round(modest_share(3_000, 1.0), 2)
        (0.25, 0.6)
    """
    return max(0.25, min(_FILE_OVERHEAD / bytes_per_weight / max(parameters, 1), _MOST_OF_TINY))


def usual_students(macs: int, input_shape: tuple[int, int, int], *, pruned: bool) -> tuple[str, ...]:
    """Names of the students that suit a teacher.

    The teacher's own layers with fewer channels, where they can be cut; else LeNets for LeNet-sized
    teachers, plain networks for small ones, residual networks for all others. What is cheap is also
    taught more in the same time, and looks more like the teacher.

    Args:
        macs: Multiply-accumulates of the teacher per image; 0 where it is unknown.
        input_shape: (C, H, W).
        pruned: Whether students can be cut out of the teacher.

    Examples:
        >>> usual_students(41_000_000, (3, 32, 32), pruned=False)[:2]
        ('resnet8:0.25', 'resnet20:0.25')
    """
    if pruned:
        return tuple(f"{PRUNED}:{width:g}" for width in _PRUNED_WIDTHS)
    macs = macs or _usual_size(input_shape)[1]
    if macs < _TINY_TEACHER_MACS and 16 <= min(input_shape[1:]) <= _LENET_SIDE:
        return tuple("lenet5-half" if width == 0.5 else f"lenet5:{width:g}" for width in _WIDTHS)
    families = ("convnet",) if macs < _SMALL_TEACHER_MACS else ("resnet8", "resnet20", "resnet18")
    return tuple(f"{family}:{width:g}" for width in _WIDTHS for family in families)


def students_below(names: Sequence[str], build: Callable[[str], Student], parameters: int) -> tuple[str, ...]:
    """Those of some students that are smaller than a teacher; the smallest one where none is.

    Args:
        names: Students to consider.
        build: Makes a student by name.
        parameters: Weights of the teacher; 0 where it is unknown.

    Examples:
        >>> from edgedafl.students import build_student
        >>> students_below(("resnet8", "resnet20"), lambda name: build_student(name, (3, 32, 32), 10), 200_000)
        ('resnet8',)
    """
    specs = [build(name).spec for name in names]
    limit = parameters or _usual_size(specs[0].input_shape)[0]
    smaller = [spec.name for spec in specs if spec.parameters < limit]
    return tuple(smaller or [min(specs, key=lambda spec: spec.parameters).name])


def _usual_size(input_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Weights and MACs of a usual classifier of such images: a LeNet-5, or a small ResNet."""
    channels, height, width = input_shape
    small = channels == 1 and max(height, width) <= _LENET_SIDE
    return (250_000, 1_000_000) if small else (1_000_000, 100_000_000)


def _candidate(student: Student, bytes_per_weight: float, latency_of: Callable[[Student], float] | None) -> Candidate:
    weights = student.spec.parameters * bytes_per_weight
    size = int(weights * (1 + _OVERHEAD_SHARE)) + _FILE_OVERHEAD
    return Candidate(student.spec, size, latency_of(student) if latency_of else None)


def _fits(candidate: Candidate, budget: Budget) -> bool:
    if budget.size is not None and candidate.size > budget.size:
        return False
    return budget.latency is None or candidate.latency is None or candidate.latency <= budget.latency


def _nothing_fits(candidates: list[Candidate], budget: Budget) -> UsageError:
    smallest = min(candidates, key=lambda c: c.size)
    parts = []
    if budget.size is not None and smallest.size > budget.size:
        name = smallest.spec.name
        parts.append(f"the smallest student ({name}) needs about {format_bytes(smallest.size)}")
    timed = [c for c in candidates if c.latency is not None]
    if budget.latency is not None and timed:
        fastest = min(timed, key=lambda c: c.latency or 0.0)
        parts.append(f"the fastest ({fastest.spec.name}) takes about {format_duration(fastest.latency or 0)}")
    limits = [
        f"--max-size {format_bytes(budget.size)}" if budget.size is not None else "",
        f"--max-latency {format_duration(budget.latency)}" if budget.latency is not None else "",
    ]
    return UsageError(
        f"No student fits {' and '.join(filter(None, limits))}: {'; '.join(parts) or 'not both at once'}.",
        "Raise the limit to at least that.",
    )
