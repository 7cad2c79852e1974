"""Teachers whose channels cannot be followed: they are quantized whole rather than replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from edgedafl.config import CompressConfig
from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.stages import prepare
from edgedafl.stages.students import builder
from edgedafl.stages.study import study_teacher
from edgedafl.targets import find_target
from edgedafl.teachers import TeacherOptions, load_onnx_teacher
from tests.conftest import LINEAR, assert_clean_failure, edgedafl, tiny_text

Save = Callable[..., Path]
UNIT = TeacherOptions(input_range=(0.0, 1.0))


def test_the_one_candidate_is_the_teacher_itself(save: Save, tmp_path: Path) -> None:
    path = save(tiny_text(LINEAR))
    plan = prepare(str(path), CompressConfig(input_range=(0.0, 1.0), output=tmp_path / "run"))
    assert plan.ladder is not None
    assert [c.name for c in plan.ladder.candidates] == ["kept:1"]
    assert not plan.trains
    images = torch.rand(6, 1, 16, 16)
    answers = plan.student.module.eval()(images)
    torch.testing.assert_close(answers, plan.teacher.scores(images), rtol=1e-5, atol=1e-5)


def test_it_is_not_cut_and_says_why(save: Save) -> None:
    teacher = load_onnx_teacher(save(tiny_text(LINEAR)), UNIT)
    build = builder(CompressConfig(), teacher, study_teacher(teacher), find_target("x86"))
    assert build("pruned:1").spec.parameters == 771
    with pytest.raises(UnsupportedModelError, match="No channel of the teacher can be cut"):
        build("kept:0.5")


def test_where_it_is_too_large_a_student_of_another_make_learns(save: Save, tmp_path: Path) -> None:
    model = tiny_text("f = Flatten(image) scores = Gemm(f, m)", "float[N,3,64,64] image", "float[N,10] scores")
    weights = np.random.default_rng(0).normal(size=(3 * 64 * 64, 10)).astype(np.float32) / 64
    model.graph.initializer.append(numpy_helper.from_array(weights, "m"))
    config = CompressConfig(input_range=(0.0, 1.0), output=tmp_path / "run", max_size="40kB")
    path = str(save(model))
    plan = prepare(path, config)
    assert plan.ladder is None
    assert plan.student.spec.parameters < 100_000
    assert not plan.student.spec.inherited
    fewer = prepare(path, config.model_copy(update={"max_size": 100_000}))
    assert fewer.student.spec.name == "kept:1" and 6 < fewer.artifact_bits < 7.2, "in fewer bits it fits"
    named = prepare(path, config.model_copy(update={"max_size": 100_000, "student": "kept:1"}))
    assert named.artifact_bits == fewer.artifact_bits
    with pytest.raises(UsageError, match=r"takes about 4\d(\.\d)? kB in weights of 3\.5 bits; --max-size is 40 kB"):
        prepare(path, config.model_copy(update={"student": "kept:1"}))


@pytest.mark.slow
def test_compress_quantizes_it_whole(save: Save, tmp_path: Path) -> None:
    path = save(tiny_text(LINEAR))
    done = edgedafl("compress", str(path), "--input-range", "0,1", "-o", str(tmp_path / "run"), "--device", "none")
    assert done.code in (0, 1), done.err
    assert (tmp_path / "run" / "models").is_dir()
    refused = edgedafl(
        "compress", str(path), "--student", "kept:0.5", "--input-range", "0,1", "-o", str(tmp_path / "b")
    )
    assert_clean_failure(refused, 5, "No channel", "--student")
