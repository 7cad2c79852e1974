"""`run.json` as a typed record, and its published schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgedafl.errors import UsageError
from edgedafl.runs import ProfileResult, QuantizeResult, RunDirectory, json_schema, result_to_dict
from tests.report.test_report import ESTIMATE, HERE, MANIFEST, run_with

SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "run-schema.json"


def test_a_manifest_is_read_into_typed_values(tmp_path: Path) -> None:
    record = run_with(tmp_path).record()
    assert record.teacher.input_shape == (3, 8, 8) and record.teacher.preprocess.high == (1.0, 1.0, 1.0)
    assert record.verdict and record.verdict.band and record.verdict.band.low == 0.97
    assert record.exported and record.exported.sizes == {"fp32": 402_000, "int8": 100_000}
    assert record.verified and record.verified.lost["int8"][0].taken_for == "bee"
    assert record.profiled and record.profiled.measured
    assert record.profiled.measured.summaries["int8"].median == 1e5
    assert record.distilled is None
    assert record.shipped == "int8"


def test_the_published_schema_is_the_one_that_is_read() -> None:
    assert json.loads(SCHEMA.read_text()) == json_schema(), "write it again: make schema"
    jsonschema.Draft202012Validator.check_schema(json_schema())


def changed(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    manifest = json.loads(json.dumps(MANIFEST))
    place = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return manifest


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("teacher", "size"), "large", "teacher.size = 'large'"),
        (("student", "input_shape"), [3, 8], "student.input_shape"),
        (("stages", "export", "result", "sizes"), {"int8": "x"}, "sizes.int8 = 'x'"),
        (("stages", "profile", "result", "measured", "summaries", "int8"), {"median": 1.0}, "summaries.int8.count"),
        (("verdict", "band"), {"fidelity": 1}, "verdict.band.low"),
    ],
)
def test_what_does_not_fit_is_named_by_place_and_refused_by_the_schema(
    path: tuple[str, ...], value: Any, words: str, tmp_path: Path
) -> None:
    manifest = changed(path, value)
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError) as caught:
        RunDirectory(tmp_path).record()
    assert words in caught.value.message
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid(MANIFEST) and not validator.is_valid(manifest)


def test_another_version_is_refused_and_unknown_keys_are_not(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({**MANIFEST, "schema": 2}))
    with pytest.raises(UsageError, match="schema 2; this version reads 1"):
        RunDirectory(tmp_path).record()
    (tmp_path / "run.json").write_text(json.dumps({**MANIFEST, "later": 1}))
    assert RunDirectory(tmp_path).record().precision == "int8"


def test_what_is_not_known_is_left_out_of_the_file() -> None:
    assert result_to_dict(QuantizeResult("fp16")).keys() >= {"precision", "agreements"}
    assert "method" not in result_to_dict(QuantizeResult("fp16"))
    assert result_to_dict(ProfileResult()) == {}


def test_whose_latency_it_is() -> None:
    from edgedafl.runs.json_form import read_result

    both = read_result({"estimate": ESTIMATE, "measured": HERE}, ProfileResult)
    assert both.here and both.is_estimated("int8"), "this machine is not the target"
    there = read_result({"estimate": ESTIMATE, "measured": {**HERE, "device": "my-pi"}}, ProfileResult)
    assert not there.is_estimated("int8") and there.is_estimated("fp16")
    emulated = read_result({"estimate": ESTIMATE, "measured": {**HERE, "kind": "emulated"}}, ProfileResult)
    assert emulated.timed("int8") is None and emulated.is_estimated("int8")
