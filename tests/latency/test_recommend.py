"""Which precision is recommended after times were measured."""

from __future__ import annotations

import pytest

from edgedafl.runs import EMULATED, LatencySummary, MeasuredLatency
from edgedafl.stages.recommend import recommend


def measured(kind: str = "measured", **medians: float) -> MeasuredLatency:
    def summary(median: float) -> LatencySummary:
        return LatencySummary(100, median, median, None, None, median, 0.0, median, median, 0.0)

    return MeasuredLatency(kind, "local", {name: summary(median) for name, median in medians.items()})


def test_the_fastest_that_keeps_its_agreement_is_taken() -> None:
    found = recommend(measured(fp32=4e6, int8=2e6), {"fp32": 0.99, "int8": 0.988}, max_drop=0.005)
    assert found is not None
    assert (found.precision, found.gain) == ("int8", 2.0)
    assert "int8 artifact is 2.00 times as fast as fp32" in found.text


def test_one_that_loses_too_much_is_not_taken_unless_it_was_judged_faithful() -> None:
    times, agreements = measured(fp32=4e6, int8=2e6), {"fp32": 1.0, "int8": 0.94}
    lost = recommend(times, agreements, max_drop=0.005)
    assert lost is not None and lost.precision == "fp32"
    assert "int8 loses more agreement than allowed" in lost.text
    judged = recommend(times, agreements, faithful={"int8"}, max_drop=0.005)
    assert judged is not None and judged.precision == "int8" and "loses" not in judged.text


@pytest.mark.parametrize("int8", [4e6, 3.9e6])
def test_a_gain_of_less_than_a_twentieth_changes_nothing(int8: float) -> None:
    found = recommend(measured(fp32=4e6, int8=int8), {})
    assert found is not None and found.precision == "fp32"
    assert "unless size matters more" in found.text


def test_emulated_times_recommend_nothing() -> None:
    assert recommend(measured(EMULATED, fp32=4e6, int8=1e6), {}) is None
