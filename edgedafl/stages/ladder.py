"""The ladder: ever smaller forms of one teacher, and the smallest that is predicted to be faithful enough.

It begins with the teacher itself in integers, so that nobody ends with less than quantizing gives. Below
that come widths chosen by what a weight costs; where a size is asked for, weights of fewer bits; and where a latency
is asked for, smaller images.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgedafl.config import CompressConfig
from edgedafl.runs import Candidate
from edgedafl.stages.candidates import Candidates
from edgedafl.stages.fitting import fits, none_fits
from edgedafl.stages.students import StudentBuilder
from edgedafl.stages.study import Study
from edgedafl.students import KEPT
from edgedafl.targets import Target

__all__ = ["Ladder", "build_ladder"]

# Where a candidate takes longer than this, only those are judged that the search for the smallest one needs.
_SLOW = 4.0
_DIGITS = 3  # of expected fidelities that count as the same


@dataclass(frozen=True)
class Ladder:
    """All candidates that were considered.

    Attributes:
        candidates: Smallest first.
        chosen: Place of the one to begin with; larger ones are for when it does not do.
    """

    candidates: tuple[Candidate, ...]
    chosen: int


def build_ladder(
    build: StudentBuilder,
    study: Study,
    target: Target,
    precision: str,
    config: CompressConfig,
) -> Ladder:
    """Candidates for a teacher that can be cut, and the one to begin with.

    Without a limit that is the smallest whose expected fidelity holds. Within limits on size or latency it
    is the one with the highest.

    Args:
        build: Makes students.
        study: Of the teacher.
        target: Of the artifact.
        precision: Of the artifact.
        config: Limits, floor and time.

    Raises:
        UsageError: If no candidate fits the limits; the message says what the smallest needs.

    Examples:
        >>> from edgedafl.stages.students import builder
        >>> from edgedafl.stages.study import study_teacher
        >>> from edgedafl.targets import find_target
        >>> from edgedafl.teachers import TeacherOptions, load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx", TeacherOptions(mean=(0.1307,), std=(0.3081,)))
        >>> config, target, study = CompressConfig(max_size="40KB"), find_target("rpi4"), study_teacher(teacher)
        >>> ladder = build_ladder(builder(config, teacher, study, target), study, target, "int8", config)
        >>> ladder.candidates[ladder.chosen].size <= 40_000
        True
    """
    candidates = Candidates(build, study, target, precision, config)
    if config.max_latency is not None or config.max_ram is not None:
        return _within_costs(candidates, config)
    if config.max_size is not None:
        return _within_size(candidates, config.max_size, config.min_fidelity)
    outlines = [candidates.outline(f"{KEPT}:{share:g}") for share in candidates.shares_from_least()]
    return _with_usual_share(_smallest_that_holds(candidates, outlines, config.min_fidelity), candidates, config)


def _with_usual_share(ladder: Ladder, candidates: Candidates, config: CompressConfig) -> Ladder:
    """Where the whole teacher is chosen and its scales and nodes make a large file, its weights in fewer bits."""
    if ladder.candidates[ladder.chosen].share < 1:
        return ladder
    outline = candidates.whole_at_usual_share()
    if outline is None:
        return ladder
    found = candidates.judged(outline)
    holds = found.should_hold(config.min_fidelity)
    smaller, larger = ladder.candidates[: ladder.chosen], ladder.candidates[ladder.chosen :]
    return Ladder((*smaller, found, *larger), len(smaller) + (0 if holds else 1))


def _smallest_that_holds(candidates: Candidates, outlines: list[Candidate], floor: float) -> Ladder:
    """Go down in growing steps while they hold, then halve what is left; judge all of them where that is quick."""
    found = dict(enumerate(outlines))
    last = len(outlines) - 1
    found[last] = candidates.judged(found[last])

    def holds(place: int) -> bool:
        if found[place].untrained is None:
            found[place] = candidates.judged(found[place])
        return found[place].should_hold(floor)

    low, high, step = -1, last, 1  # what is too small, and what holds or is the last resort
    while high > 0 and holds(max(0, high - step)):
        high, step = max(0, high - step), 2 * step
    if high > 0:
        low = max(0, high - step)
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    if candidates.slowest <= _SLOW:
        for place in range(last):
            holds(place)
    return Ladder(tuple(found.values()), high)


def _within_costs(candidates: Candidates, config: CompressConfig) -> Ladder:
    """Of all widths and sizes of images, those within limits on latency, working memory and size."""
    costed = [candidates.with_costs(candidates.outline(name)) for name in candidates.names_for_costs()]
    fitting = [c for c in costed if fits(c, config)]
    if not fitting:
        raise none_fits(costed, config)
    # Of every size of images the widest that fits: narrower ones answer worse and gain nothing.
    widest: dict[str, Candidate] = {}
    for candidate in sorted(fitting, key=lambda c: c.share):
        widest[candidate.name.partition("@")[2]] = candidate
    return _most_promising(candidates, list(widest.values()))


def _within_size(candidates: Candidates, size: int, floor: float) -> Ladder:
    """The whole teacher in fewer bits where that holds, for which nothing is trained; else the most promising."""
    ladder = _most_promising(candidates, candidates.within_size(size))
    for place, found in enumerate(ladder.candidates):
        if found.share >= 1 and found.should_hold(floor):
            return Ladder(ladder.candidates, place)
    return ladder


def _most_promising(candidates: Candidates, outlines: list[Candidate]) -> Ladder:
    judged = [candidates.judged(candidate) for candidate in outlines]
    return Ladder(tuple(sorted(judged, key=_promise)), len(judged) - 1)


def _promise(candidate: Candidate) -> tuple[float, float, float]:
    """What is expected; where that is the same, as below all that predictions know, weights and arithmetic tell."""
    expected = candidate.expected.fidelity if candidate.expected else 0.0
    return round(expected, _DIGITS), candidate.share, candidate.macs
