"""Which candidates are looked at on the way down."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgedafl.fidelity import Band
from edgedafl.stages.ladder import Candidate, _smallest_that_holds

SHARES = (0.25, 0.35, 0.45, 0.6, 0.75, 0.85, 0.95, 1.0)


class Rungs:
    """Candidates that hold from one share on."""

    def __init__(self, least: float, slowest: float) -> None:
        self.least, self.slowest = least, slowest
        self.asked: list[float] = []

    def judged(self, candidate: Candidate) -> Candidate:
        self.asked.append(candidate.share)
        cautious = 0.99 if candidate.share >= self.least else 0.5
        band = Band(cautious, cautious, cautious, cautious, "predicted", 0)
        return replace(candidate, untrained=band, expected=band)


def outlines() -> list[Candidate]:
    return [Candidate(f"kept:{s}", s, (3, 8, 8), int(1000 * s), 1, int(1000 * s), None) for s in SHARES]


@pytest.mark.parametrize("least", [*SHARES, 2.0])
def test_the_smallest_that_holds_is_found_and_the_whole_teacher_is_the_last_resort(least: float) -> None:
    for slowest in (0.0, 60.0):
        rungs = Rungs(least, slowest)
        ladder = _smallest_that_holds(rungs, outlines(), 0.95)  # type: ignore[arg-type]
        assert ladder.candidates[ladder.chosen].share == min(least, 1.0)
        assert len(rungs.asked) == len(set(rungs.asked)), "nothing is judged twice"
        assert (len(rungs.asked) == len(SHARES)) or slowest


def test_where_a_candidate_takes_long_few_are_judged() -> None:
    nothing_holds, all_hold = Rungs(1.0, 60.0), Rungs(0.0, 60.0)
    _smallest_that_holds(nothing_holds, outlines(), 0.95)  # type: ignore[arg-type]
    _smallest_that_holds(all_hold, outlines(), 0.95)  # type: ignore[arg-type]
    assert nothing_holds.asked == [1.0, 0.95]
    assert all_hold.asked == [1.0, 0.95, 0.75, 0.25]
