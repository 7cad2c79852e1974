"""Statistics, the honest floors, and estimates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgedafl.errors import MeasurementError, UsageError
from edgedafl.latency import BenchOptions, early_stopping_bound, estimate_latency, read_measurement, summarize
from edgedafl.students import build_student, module_layers
from edgedafl.targets import find_target, list_targets


def samples(n: int, *, drift: float = 0.0) -> list[int]:
    random = np.random.default_rng(0)
    values = random.gamma(9, 1e4, n) * np.linspace(1, 1 + drift, n)
    return [int(v) for v in values]


def test_percentiles_only_above_their_floors() -> None:
    assert summarize(samples(63)).p90 is None
    assert summarize(samples(64)).p90 is not None
    assert summarize(samples(661)).p99 is None
    assert summarize(samples(662)).p99 is not None
    with pytest.raises(ValueError, match="no samples"):
        summarize([])


def test_summary_of_known_samples() -> None:
    summary = summarize([*range(1, 1001)])
    assert (summary.count, summary.minimum, summary.median, summary.mean) == (1000, 1, 500.5, 500.5)
    assert summary.p90 == pytest.approx(900.1)
    assert summary.median_low < 500.5 < summary.median_high
    assert summary.drift == pytest.approx(1000 / 2 * 5 / 3 / (1000 / 6) - 1, rel=0.05)


def test_the_bootstrap_interval_covers_the_true_median() -> None:
    true = np.median(np.random.default_rng(9).gamma(9, 1e4, 1_000_000))
    hits = 0
    for seed in range(40):
        values = np.random.default_rng(seed).gamma(9, 1e4, 400)
        summary = summarize([int(v) for v in values])
        hits += summary.median_low <= true <= summary.median_high
    assert hits >= 34


def write(path: Path, **changes: object) -> Path:
    result = {
        "schema": 1,
        "samples_ns": {"fp32": samples(1100), "int8": [s // 2 for s in samples(1100)]},
        "environment": {"other_load": 0.0, "steal_share": 0.0},
        "checks": {"int8": {"passed": True, "relative_error": 0.0}},
        "quick": False,
    }
    path.write_text(json.dumps({**result, **changes}))
    return path


def test_speed_up_is_a_ratio_of_medians(tmp_path: Path) -> None:
    found = read_measurement(write(tmp_path / "l.json"), "local")
    assert found.speed_up["int8"] == pytest.approx(2, rel=1e-3)
    assert found.warnings == ()
    assert found.kind == "measured"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"environment": {"other_load": 0.5}}, "contended"),
        ({"environment": {"steal_share": 0.05}}, "stolen"),
        ({"environment": {"dot_products": False}}, "dot-product"),
        ({"samples_ns": {"fp32": samples(900, drift=0.5)}}, "drifted"),
        ({"quick": True}, "quick run"),
        ({"checks": {"int8": {"passed": False, "relative_error": 0.7}}}, "differ"),
    ],
)
def test_doubts_are_said(tmp_path: Path, changes: dict[str, object], word: str) -> None:
    assert any(word in warning for warning in read_measurement(write(tmp_path / "l.json", **changes), "local").warnings)


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"schema": 2, "samples_ns": {"a": [1]}}', '{"schema": 1, "samples_ns": {}}']
)
def test_damaged_results_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "l.json"
    path.write_text(text)
    with pytest.raises(MeasurementError):
        read_measurement(path, "local")


@pytest.mark.parametrize("target", [t for t in list_targets() if t.device], ids=lambda t: t.name)
def test_estimates_grow_with_work_and_carry_their_band(target) -> None:
    small, large = (
        estimate_latency(module_layers(build_student(n, (3, 32, 32), 10).module, (3, 32, 32)), target, "int8")
        for n in ("resnet8", "resnet20")
    )
    assert 0 < small.median < large.median
    assert (small.kind, small.tier) == ("estimate", "D")
    assert small.high / small.median >= 3 * (1 - 1e-9)
    assert small.median / small.low == pytest.approx(small.high / small.median)


def test_a_target_without_a_described_processor_has_no_estimate() -> None:
    layers = module_layers(build_student("resnet8", (3, 32, 32), 10).module, (3, 32, 32))
    with pytest.raises(UsageError, match="nothing is known of its speed"):
        estimate_latency(layers, find_target("cortex-m"), "int8")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        (
            {"watch": [{"clocks_khz": {"policy0": 2400000}}, {"clocks_khz": {"policy0": 1500000}}]},
            "the clock of policy0",
        ),
        (
            {
                "environment": {"facts": {"throttles_at.soc": "80000"}},
                "watch": [{"temperatures": {"soc": 71.0}}, {"temperatures": {"soc": 80.5}}],
            },
            "soc reached 80.5",
        ),
        ({"environment": {"facts": {"throttled": "0x50004"}}}, "under-voltage or throttling"),
    ],
)
def test_a_throttled_run_is_not_valid(tmp_path: Path, changes: dict[str, object], word: str) -> None:
    found = read_measurement(write(tmp_path / "l.json", **changes), "pi")
    assert any(word in text for text in found.invalid)


def test_heat_and_old_throttling_alone_are_no_verdict(tmp_path: Path) -> None:
    # The upper bits say "since boot": the run itself was fine.
    changes = {"environment": {"facts": {"throttled": "0x50000"}}, "watch": [{"temperatures": {"soc": 79.0}}]}
    assert read_measurement(write(tmp_path / "l.json", **changes), "pi").warnings == ()


def test_processes_that_disagree_are_named(tmp_path: Path) -> None:
    values = [1000] * 400 + [1300] * 400
    parts = {"samples_ns": {"fp32": values}, "process_samples": {"fp32": [400, 400]}, "checks": {}}
    found = read_measurement(write(tmp_path / "l.json", **parts), "local")
    assert any("differ by 30.0% between processes" in text for text in found.warnings)
    assert found.steadiest == {"fp32": 1000.0}


def test_emulated_times_are_called_so(tmp_path: Path) -> None:
    found = read_measurement(write(tmp_path / "l.json", kind="emulated"), "ssh://x")
    assert found.kind == "emulated"
    assert any("nothing about any device" in text for text in found.warnings)


def test_early_stopping_has_mlperfs_floors() -> None:
    assert early_stopping_bound([*range(63)], 0.9) is None
    assert early_stopping_bound([*range(64)], 0.9) == 62
    assert early_stopping_bound([*range(661)], 0.99) is None
    assert early_stopping_bound([*range(662)], 0.99) == 660


def test_early_stopping_covers_the_true_percentile() -> None:
    random = np.random.default_rng(0)
    true = np.quantile(random.gamma(9, 1e4, 1_000_000), 0.9)
    below = sum(early_stopping_bound([int(v) for v in random.gamma(9, 1e4, 500)], 0.9) < true for _ in range(200))
    assert below <= 6  # 1 in 100 on average


@pytest.mark.parametrize(
    "wrong",
    [{"quick": True, "mlperf": True}, {"threads": 0}, {"processes": 0}, {"cpus": "4-"}, {"cpus": "0;reboot"}],
)
def test_impossible_measurements_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        BenchOptions(**wrong)


def test_options_reach_the_bench_as_flags() -> None:
    words = BenchOptions(threads=4, cpus="4-7", layers=True, processes=5).arguments()
    assert words == ["--threads", "4", "--layers", "--processes", "5", "--cpus", "4-7"]
    assert BenchOptions(quick=True).arguments() == ["--threads", "1", "--quick"]


def test_a_published_raspberry_pi_figure_lies_within_the_band() -> None:
    # ResNet-18 at 224 pixels, fp32, one thread of a Raspberry Pi 4 at 1.5 GHz takes 0.3-0.5 s.
    layers = module_layers(build_student("resnet18", (3, 224, 224), 1000).module, (3, 224, 224))
    found = estimate_latency(layers, find_target("rpi4"), "fp32")
    assert found.low < 0.4e9 < found.high
