"""Estimates from published rows and from networks measured on the device."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgedafl.errors import UsageError
from edgedafl.graph.calibration_networks import calibration_networks
from edgedafl.graph.cost import LayerCost, layer_costs
from edgedafl.graph.image_input import find_image_input
from edgedafl.graph.runtime import open_session
from edgedafl.latency import DeviceModel, Measured, estimate_latency, fit_model
from edgedafl.latency.estimator import (
    KINDS,
    Observation,
    Published,
    architectures,
    find_processor,
    fit_device,
    fit_prior,
    mark_releases,
    packaged_rows,
    read_rows,
    seconds_at_peak,
    work_of,
)  # fmt: skip
from edgedafl.module_cost import module_layers
from edgedafl.students import build_student
from edgedafl.targets import find_target


@pytest.mark.parametrize(
    ("names", "precision", "threads", "expected"),
    [
        (("BCM2711", "Raspberry Pi 4B (1.8GHz)"), "fp32", 1, ("BCM2711", "A72", 1.8, 1)),
        (("Snapdragon 855+", "OnePlus 7T"), "fp16", 4, ("Snapdragon 855", "A76+", 2.84, 4)),
        (("RK3568", "Rock 3A"), "int8", None, ("RK3566", "in-order", 2.0, 4)),
        (("Tegra X1", "Jetson Nano"), "fp32", 1, ("Tegra X1", "A72", 1.43, 1)),
        (("Snapdragon 8 Gen 2", ""), "int8", 1, ("Snapdragon 8 Gen 2", "A76+", 3.2, 1)),
    ],
)
def test_chips_are_found_by_what_they_are_called(names, precision, threads, expected) -> None:
    place = find_processor(*names, precision=precision, threads=threads)
    assert (place.chip, place.family, place.clock, place.threads) == expected


def test_peaks_follow_the_specification() -> None:
    pi = find_processor("Raspberry Pi 5", precision="fp32")
    assert pi.macs == pytest.approx(8 * 2.4e9)
    assert find_processor("Raspberry Pi 5", precision="fp16").macs == pytest.approx(2 * pi.macs)
    assert find_processor("Raspberry Pi 5", precision="int8").dot
    assert not find_processor("Raspberry Pi 4", precision="int8").dot
    little = find_processor("RK3588", precision="fp32", cores="little cores")
    assert (little.family, little.clock) == ("in-order", 1.8)
    assert find_processor("Jetson Nano", precision="int8", backend="gpu") is None  # has no integer units
    assert find_processor("a toaster", precision="fp32") is None


def test_the_work_of_a_network_is_the_sum_of_its_layers() -> None:
    layers = [
        LayerCost("conv3x3", 1000, 90, 50, 60, (3, 8), "a"),
        LayerCost("pointwise", 500, 40, 60, 70, (8, 8), "b"),
        LayerCost("pool", 0, 0, 70, 10, (8, 8), "c"),
        LayerCost("linear", 30, 30, 10, 3, (10, 3), "d"),
        LayerCost("conv3x3", 2000, 0, 0, 0, (256, 8), "e"),
    ]
    work = dict(zip(KINDS, work_of(layers), strict=True))
    assert (work["conv3x3"], work["pointwise"], work["linear_weights"], work["layers"]) == (1000, 500, 30, 5)
    assert work["conv3x3_wide"] == 2000
    assert (work["conv_elements"], work["other_elements"]) == (50 + 60 + 90 + 60 + 70 + 40, 70 + 10)
    row = seconds_at_peak(work_of(layers), find_processor("Raspberry Pi 5", precision="fp32"), "fp32")
    assert row[0] == pytest.approx(1000 / (8 * 2.4e9))
    assert row[6] == pytest.approx(30 * 4 / 17.1e9)
    assert row[7] == pytest.approx(370 * 4 / 17.1e9)


def test_every_known_network_is_complete() -> None:
    """ResNet-18 at 224 pixels: 1.81 G multiply-accumulates, 694 M of them in 3x3 convolutions of 256 and 512 channels."""
    sums = architectures()
    assert len(sums) > 100 and all(work.shape == (len(KINDS),) and work.min() >= 0 for work in sums.values())
    known = dict(zip(KINDS, sums["resnet18@224"], strict=True))
    assert (known["conv3x3"], known["conv3x3_wide"]) == pytest.approx((809e6, 694e6), rel=0.01)


def test_both_counters_see_the_same_layers() -> None:
    from edgedafl.export import student_to_onnx

    for name, shape in {"resnet8": (3, 32, 32), "lenet5": (1, 32, 32), "mobilenetv2:0.25": (3, 32, 32)}.items():
        module = build_student(name, shape, 10).module
        model = student_to_onnx(module, shape)
        counted = [(r.kind, r.macs, r.elements, r.channels) for r in layer_costs(model, find_image_input(model))]
        assert sorted(counted) == sorted((r.kind, r.macs, r.elements, r.channels) for r in module_layers(module, shape))


def synthetic(count: int, coefficients: np.ndarray, *, noise: float, seed: int = 0) -> list[Observation]:
    random = np.random.default_rng(seed)
    rows = random.lognormal(-7, 1, (count, len(KINDS)))
    times = rows @ coefficients * np.exp(noise * random.normal(size=count))
    return [
        Observation(row, time, 1, False, f"chip{i % 4}") for i, (row, time) in enumerate(zip(rows, times, strict=True))
    ]


TRUE = np.array([0.5, 0.5, 2.0, 1.2, 4.0, 3.0, 1.0, 0.8, 1.3, 0.4])
DEPTHWISE = KINDS.index("depthwise")


def test_a_prior_recovers_the_coefficients_it_was_made_from() -> None:
    prior = fit_prior(synthetic(300, TRUE, noise=0.02))
    np.testing.assert_allclose(prior.coefficients(1, False), TRUE, rtol=0.15)
    assert prior.coefficients(4, False).sum() > prior.coefficients(1, False).sum()  # more threads, less share of peak


def test_a_few_rows_scale_the_prior_and_leave_no_layer_for_free() -> None:
    prior = fit_prior(synthetic(300, TRUE, noise=0.02))
    seen = [
        replace(o, row=o.row * (np.arange(len(KINDS)) != DEPTHWISE)) for o in synthetic(3, 2 * TRUE, noise=0.0, seed=1)
    ]
    seen = [replace(o, seconds=float(o.row @ (2 * TRUE))) for o in seen]
    own = fit_device(seen, prior.coefficients(1, False))
    np.testing.assert_allclose(own, 2 * TRUE, rtol=0.2)
    assert own[DEPTHWISE] > 4  # depthwise did not occur


def test_wide_convolutions_are_told_apart_only_where_that_is_asked_for() -> None:
    rows = synthetic(300, np.r_[2.0, 0.4, TRUE[2:]], noise=0.02)
    apart, together = (fit_prior(rows, wide_apart=asked).coefficients(1, False) for asked in (True, False))
    assert apart[0] / apart[1] == pytest.approx(5, rel=0.25)
    assert together[0] / together[1] == pytest.approx(1, rel=0.1)


def test_eight_bits_keep_the_proportions_of_floating_point_where_their_rows_say_nothing() -> None:
    floats = fit_prior(synthetic(300, TRUE, noise=0.02))
    seen = [
        replace(o, row=o.row * (np.arange(len(KINDS)) != DEPTHWISE)) for o in synthetic(60, TRUE / 2, noise=0.0, seed=1)
    ]
    seen = [replace(o, seconds=float(o.row @ (TRUE / 2))) for o in seen]
    alone, helped = (fit_prior(seen, near).coefficients(1, False)[DEPTHWISE] for near in (None, floats))
    assert helped == pytest.approx(TRUE[DEPTHWISE] / 2, rel=0.15)
    assert abs(alone - TRUE[DEPTHWISE] / 2) > 2 * abs(helped - TRUE[DEPTHWISE] / 2)


def test_older_releases_are_told_from_slow_chips() -> None:
    rows = synthetic(120, TRUE, noise=0.02)
    older = [replace(o, seconds=2 * o.seconds, older=True) for o in synthetic(60, TRUE, noise=0.02, seed=1)]
    prior = fit_prior([*rows, *older])
    assert np.median(prior.coefficients(1, False) / TRUE) == pytest.approx(1, abs=0.1)
    assert prior.coefficients(1, False, older=True)[0] / prior.coefficients(1, False)[0] == pytest.approx(2, rel=0.2)
    plain = fit_prior([*rows, *(replace(o, older=False) for o in older)])
    told, mixed = (
        np.mean([abs(np.log(o.row @ found.coefficients(1, False) / o.seconds)) for o in rows])
        for found in (prior, plain)
    )
    assert told < 0.1 < mixed  # what mixing them up costs


def test_a_long_list_without_the_newer_network_is_of_an_older_release() -> None:
    rows = [row for row in packaged_rows() if row.runtime == "ncnn"]
    older = {row.place.name for row in rows if row.older}
    assert older >= {"Kirin 970", "Snapdragon 660", "Snapdragon 835"}
    assert not older & {"BCM2711", "BCM2712", "Snapdragon 855"}
    assert {row.precision for row in rows if row.older} == {"int8"}
    few = [row for row in rows if row.place.name == "Kirin 970"][:5]
    assert not any(row.older for row in mark_releases(few))  # too short a list says nothing
    kirin = next(row for row in rows if row.place.name == "Kirin 970" and row.precision == "int8")
    network = next(row for row in rows if row.architecture.startswith("efficientnetv2"))
    listed = [*rows, replace(network, device=kirin.device)]
    assert not any(row.older for row in mark_releases(listed) if row.board == kirin.board)
    guess = [
        Published(packaged_rows()).predict(
            kirin.work, kirin.place, "int8", "ncnn", older=old, leave_out=("Kirin 960", "")
        )
        for old in (False, True)
    ]
    assert guess[1].seconds > 1.3 * guess[0].seconds


def test_rows_in_floating_point_tell_how_a_device_differs_in_eight_bits() -> None:
    rows = [row for row in packaged_rows() if row.runtime == "ncnn" and row.place.chip == "Snapdragon 675"]
    published, spec, told = Published(packaged_rows()), [], []
    for row in rows:
        if row.precision != "int8":
            continue
        floats = [
            r for r in rows if (r.device, r.precision) == (row.device, "fp16") and r.architecture != row.architecture
        ]
        away = (row.place.chip, row.architecture)
        alone, helped = (
            published.predict(row.work, row.place, "int8", "ncnn", floats=given, leave_out=away)
            for given in ([], floats)
        )
        assert (alone.tier, helped.tier) == ("C", "B")
        spec.append(abs(np.log(alone.seconds / row.seconds)))
        told.append(abs(np.log(helped.seconds / row.seconds)))
    assert len(told) > 8
    assert np.median(told) < 0.5 * np.median(spec)


def test_packaged_rows_are_sound_and_name_their_sources() -> None:
    rows = packaged_rows()
    assert len(rows) > 1500
    assert all(row.source and 1e-5 < row.seconds < 60 for row in rows)
    assert {row.place.family for row in rows} == {"in-order", "A72", "A76+", "gpu"}
    assert len(architectures()) > 80


def test_held_out_estimates_stay_within_their_band() -> None:
    # A sample of the full hold-out of benchmarks/estimator.py.
    rows = [row for row in packaged_rows() if row.runtime == "ncnn" and row.place.threads == 1]
    published, inside, errors = Published(packaged_rows()), [], []
    for row in rows[::12]:
        guess = published.predict(
            row.work, row.place, row.precision, row.runtime, leave_out=(row.place.chip, row.architecture)
        )
        assert guess.tier == "C"
        factor = max(guess.seconds / row.seconds, row.seconds / guess.seconds)
        inside.append(factor <= guess.band)
        errors.append(abs(guess.seconds / row.seconds - 1))
    assert np.mean(inside) > 0.8
    assert np.median(errors) < 0.45


def test_other_runtimes_and_unseen_layers_widen_the_band() -> None:
    published, place = Published(packaged_rows()), find_processor("Raspberry Pi 4", precision="fp32")
    work = architectures()["resnet18@224"]
    same, other = (published.predict(work, place, "fp32", runtime) for runtime in ("ncnn", "Some Runtime"))
    assert (same.tier, other.tier) == ("C", "D")
    assert other.band >= 3 > same.band
    with pytest.raises(UsageError, match="No published row is near enough"):
        Published([]).predict(work, place, "fp32", "ncnn")


@pytest.mark.parametrize(
    "text", ["", "{}", '{"measurements": 3}', '[{"runtime": 1}, 7]', '{"measurements": [], "models": []}']
)
def test_damaged_row_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="not a file of published rows"):
        read_rows(path)


def test_rows_of_unknown_chips_networks_and_figures_are_passed_over(tmp_path: Path) -> None:
    good = {
        "runtime": "ncnn", "backend": "cpu", "device": "Raspberry Pi 5", "soc": "BCM2712", "threads": 4, "batch": 1,
        "power_mode": "all cores", "precision": "fp16", "arch": "resnet18@224", "latency_ms": 19.8,
    }  # fmt: skip
    wrong = [
        {"soc": "?", "device": "?"}, {"arch": "net@1"}, {"latency_ms": -1}, {"latency_ms": math.nan}, {"batch": 8},
        {"latency_ms": "fast"}, {"precision": "int4"}, {"backend": "npu"}, {"arch": None},
    ]  # fmt: skip
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([good, *({**good, **change} for change in wrong)]))
    (row,) = read_rows(path)
    assert (row.seconds, row.place.chip, row.place.threads) == (pytest.approx(0.0198), "BCM2712", 4)


def test_a_layer_table_of_the_file_makes_its_network_known(tmp_path: Path) -> None:
    columns = ["op", "k", "stride", "cin", "cout", "groups", "h", "w", "macs", "params", "in_elements", "out_elements"]
    layers = [["conv", 3, 1, 3, 8, 1, 4, 4, 3456, 224, 48, 128], ["fc", 1, 1, 8, 2, 1, 1, 1, 16, 18, 8, 2]]
    row = {
        "runtime": "ncnn",
        "device": "Raspberry Pi 5",
        "soc": "BCM2712",
        "precision": "fp32",
        "arch": "mine@4",
        "latency_ms": 1,
    }
    path = tmp_path / "rows.json"
    path.write_text(
        json.dumps({"models": {"mine@4": {"layers_columns": columns, "layers": layers}}, "measurements": [row]})
    )
    (found,) = read_rows(path)
    work = dict(zip(KINDS, found.work, strict=True))
    assert (work["conv3x3"], work["linear_weights"], work["conv_elements"], work["layers"]) == (3456, 18, 400, 2)


def test_micro_networks_run_and_cover_what_students_have() -> None:
    networks = calibration_networks(16)
    kinds = set()
    for network in networks:
        image = find_image_input(network.model)
        kinds |= {layer.kind for layer in layer_costs(network.model, image)}
        feed = np.zeros((1, *network.input_shape), np.float32)
        (logits,) = open_session(network.model).run(None, {"image": feed})
        assert logits.shape == (1, 10)
    assert kinds >= {"conv3x3", "conv", "pointwise", "depthwise", "linear", "pool", "add"}
    again = calibration_networks(16)
    assert all(a.model == b.model for a, b in zip(networks, again, strict=True))


def pretended(networks, *, noise: float) -> list[Measured]:
    """A device whose time per layer follows a law that is not the model's own."""
    random = np.random.default_rng(0)
    found = []
    for network in networks:
        layers = layer_costs(network.model, find_image_input(network.model))
        seconds = 5e-6 + sum(
            2e-6 + layer.elements * 2e-10 + layer.macs / (4e10 * min(1.0, max(layer.channels[1], 4) / 32))
            for layer in layers
        )
        found.append(Measured(network.name, layers, seconds * math.exp(noise * random.normal())))
    return found


def test_a_calibrated_device_is_predicted_closely() -> None:
    rows = pretended(calibration_networks(64), noise=0.02)
    fit = fit_model(rows)
    assert fit.median_error < 0.10
    assert fit.band < 1.4
    model = DeviceModel("board", "rpi5", 1, {"fp32": fit}, {"machine": "aarch64"})
    again = DeviceModel.from_dict(json.loads(json.dumps(model.to_dict())))
    assert again == model
    estimate = estimate_latency(rows[0].layers, find_target("rpi5"), "fp32", again)
    assert (estimate.device, estimate.tier) == ("board", "A")
    assert estimate.low < rows[0].seconds * 1e9 < estimate.high
    # A precision that was not measured falls back to published rows.
    assert estimate_latency(rows[0].layers, find_target("rpi5"), "int8", again).tier == "D"


def test_too_few_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        fit_model(pretended(calibration_networks(8), noise=0.0))
