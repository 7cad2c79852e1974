"""Predicted and measured fidelity."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest

from edgedafl.export import student_to_onnx
from edgedafl.fidelity import Comparison, Predictor, Signals, compare_answers, measured_band
from edgedafl.fidelity.prediction import row_from_dict
from edgedafl.graph.edit import fix_batch
from edgedafl.graph.packed import has_few_integers
from edgedafl.quantize import integer_model
from edgedafl.runs import Band, Candidate
from edgedafl.stages import pruner_of, study_teacher
from edgedafl.stages.graphs import for_target
from edgedafl.stages.verdict import _remedy
from edgedafl.targets import find_target
from edgedafl.teachers import TeacherOptions, load_teacher
from tests.conftest import EXAMPLE


def test_answers_are_compared_by_class_margin_and_error() -> None:
    teacher = np.array([[4.0, 0.0, 0.0], [0.0, 1.0, 0.9], [0.0, 0.0, 3.0], [2.0, 0.0, 0.0]])
    model = teacher.copy()
    model[1] = [0.0, 0.9, 1.0]  # the one that is hardly decided
    found = compare_answers(teacher, model)
    assert found.agreement == 0.75
    assert found.weighted == pytest.approx(1 - 0.1 / (4 + 0.1 + 3 + 2))
    assert 0 < found.error < 0.01
    shifted = compare_answers(teacher, teacher + 7)
    assert (shifted.agreement, shifted.error) == (1.0, pytest.approx(0.0, abs=1e-12))


def test_several_labels_are_compared_one_by_one() -> None:
    teacher = np.array([[2.0, -1.0], [-3.0, 0.5]])
    found = compare_answers(teacher, np.array([[2.0, -1.0], [-3.0, -0.5]]), "multi-label")
    assert found.agreement == 0.75
    assert found.weighted == pytest.approx(6 / 6.5)


def signals(agreement: float, weighted: float, error: float, classes: int = 10) -> Signals:
    one = Comparison(agreement, weighted, error)
    return Signals({"natural": one, "mixture": one}, classes, colour=True)


def test_what_looks_better_is_predicted_to_be_better() -> None:
    predictor = Predictor.shipped()
    bands = [predictor.predict(s) for s in (signals(0.6, 0.75, 0.3), signals(0.85, 0.95, 0.04), signals(0.98, 1, 2e-3))]
    found = [band.fidelity for band in bands if band is not None]
    assert len(found) == 3 and found == sorted(found)
    assert found[0] < 0.9 and found[2] > 0.96
    for band in bands:
        assert band is not None and 0 <= band.low <= band.fidelity <= band.high <= 1 and band.kind == "predicted"


def test_predictions_far_outside_all_rows_are_refused() -> None:
    assert Predictor.shipped().predict(signals(0.9, 0.95, 0.05, classes=10**6)) is None


def test_predictions_hold_for_teachers_that_were_left_out() -> None:
    rows = json.loads(resources.files("edgedafl.fidelity").joinpath("data", "rows.json").read_text("utf-8"))["rows"]
    all_rows = [row_from_dict(entry) for entry in rows]
    teachers = sorted({row.teacher for row in all_rows})
    assert len(teachers) >= 12
    errors, covered = [], []
    for name in teachers:
        predictor = Predictor([row for row in all_rows if row.teacher != name])
        for row in (row for row in all_rows if row.teacher == name):
            band = predictor.predict(row.signals)
            if band is None:
                continue
            covered.append(band.low - 1e-9 <= row.fidelity <= band.high + 1e-9)
            if row.fidelity >= 0.8:
                errors.append(abs(band.fidelity - row.fidelity))
    assert np.mean(covered) >= 0.85
    assert np.median(errors) <= 0.03


def test_a_measured_share_has_the_band_of_its_count() -> None:
    few, many = (
        measured_band(19, 20, "measured on your pictures"),
        measured_band(1900, 2000, "measured on your pictures"),
    )
    assert few.fidelity == many.fidelity == 0.95
    assert few.low < 0.85 < 0.94 < many.low < 0.95 < many.high < 0.96
    assert measured_band(20, 20, "").high == 1.0 and measured_band(20, 20, "").low < 0.9
    assert many.images == 2000


def test_fewer_bits_are_told_from_what_eight_do() -> None:
    predictor = Predictor.shipped()

    def band_of(error: float, eight_bits: float | None) -> Band:
        whole = replace(signals(0.9, 0.97, error), whole=True, eight_bits=eight_bits)
        found = predictor.predict(whole)
        assert found is not None
        return found

    eight = band_of(0.01, None)
    same, twice, much = (band_of(error, 0.01) for error in (0.01, 0.02, 0.2))
    assert same.fidelity == pytest.approx(eight.fidelity)
    assert same.fidelity > twice.fidelity > much.fidelity
    assert band_of(0.005, 0.01).fidelity == same.fidelity, "no fewer bits are better than eight"
    assert much.low < 0.9 < much.cautious + 0.09 and all(b.low <= b.cautious <= b.fidelity for b in (same, twice, much))
    assert signals(0.9, 0.97, 0.02) == Signals.from_dict(signals(0.9, 0.97, 0.02).to_dict())


def test_a_study_keeps_what_eight_bits_do_for_fewer() -> None:
    teacher = load_teacher(str(EXAMPLE / "teacher.onnx"), TeacherOptions(mean=(0.1307,), std=(0.3081,)))
    study = study_teacher(teacher)
    target = find_target("rpi4")
    student = pruner_of(teacher, study).student("kept:1")
    model = fix_batch(for_target(student_to_onnx(student.module, teacher.spec.input_shape), target), 1)
    images = study.ranging_images.numpy()
    eight, four = (integer_model(model, target.scheme, images, images[:32], bits) for bits in (8.0, 4.0))
    assert not has_few_integers(eight) and has_few_integers(four)
    alone = study_teacher(teacher).band_of_graph(four, whole=True)
    study.band_of_graph(eight, whole=True)
    told = study.band_of_graph(four, whole=True)
    assert told is not None and alone is not None and told.fidelity != alone.fidelity


def test_advice_names_nothing_that_is_smaller_than_what_failed() -> None:
    """Measured below the floor, the teacher in eight bits is not advised because more was predicted of it."""
    held = Band(0.97, 0.93, 1.0, 0.96, "predicted")
    sizes = {"kept:0.8": 130_000, "kept:1": 168_000}
    ladder = tuple(Candidate(name, 1.0, (3, 48, 192), 1, 1, size, None, expected=held) for name, size in sizes.items())
    assert "kept:1: 168 kB" in _remedy(0.95, ladder, ("kept:0.8", 8.0), in_floats=False)
    assert "--precision fp16" in _remedy(0.95, ladder, ("kept:1", 8.0), in_floats=True)
    assert "No candidate" in _remedy(0.98, ladder, ("kept:0.8", 8.0), in_floats=False)
