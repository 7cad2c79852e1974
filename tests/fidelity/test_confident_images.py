"""Images are moved until the teacher is sure of them, and integer ranges reach as far as its answers then do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgedafl.stages.confident import confident_images
from edgedafl.stages.study import study_teacher
from edgedafl.tasks import Task
from edgedafl.teachers import Teacher, TeacherOptions, load_onnx_teacher
from tests.conftest import EXAMPLE, tiny_text

Save = Callable[..., Path]


def halves(steepness: float) -> onnx.ModelProto:
    """Two classes: the left or the right half of the picture is brighter."""
    model = tiny_text("f = Flatten(image) scores = MatMul(f, sides)", outputs="float[N,2] scores")
    side = np.where(np.arange(256) % 16 < 8, 1.0, -1.0) * steepness / 256
    model.graph.initializer.append(numpy_helper.from_array(np.stack([side, -side], 1).astype(np.float32), "sides"))
    return model


def sureness(teacher: Teacher, images: torch.Tensor) -> torch.Tensor:
    return torch.softmax(teacher.scores(images), 1).amax(1)


def test_doubtful_images_become_clear_and_clear_ones_stay(save: Save) -> None:
    teacher = load_onnx_teacher(save(halves(400.0)), TeacherOptions(convention="tf"))
    clear = torch.cat([torch.full((4, 1, 16, 8), 0.5), torch.full((4, 1, 16, 8), -0.5)], 3)
    images = torch.cat([0.1 * torch.rand(12, 1, 16, 16), clear])
    found = confident_images(teacher, images)
    assert float(sureness(teacher, images)[:12].amin()) < 0.9
    assert float(sureness(teacher, found).amin()) >= 0.99
    assert torch.equal(found[12:], clear)
    assert float((found - images).abs().amax()) < 0.1 and float(found.abs().amax()) <= 1.0
    assert (teacher.scores(images).argmax(1) == teacher.scores(found).argmax(1)).all()


def test_eight_steps_are_the_most(save: Save) -> None:
    """A teacher that is sure of nothing is not pushed to what no picture does."""
    teacher = load_onnx_teacher(save(halves(1.0)), TeacherOptions(convention="unit"))
    images = torch.full((16, 1, 16, 16), 0.5) + 0.01 * torch.rand(16, 1, 16, 16)
    moved = confident_images(teacher, images) - images
    assert 0.002 < float(moved.square().mean().sqrt()) < 8 * 0.002 * 10


@pytest.mark.parametrize("task", ["binary", "multi-label"])
def test_every_task_has_sure_answers(save: Save, task: Task) -> None:
    model = tiny_text("f = Flatten(image) z = MatMul(f, sides) scores = Sigmoid(z)", outputs="float[N,2] scores")
    side = np.linspace(-1, 1, 512).reshape(256, 2) * 4
    model.graph.initializer.append(numpy_helper.from_array(side.astype(np.float32), "sides"))
    teacher = load_onnx_teacher(save(model), TeacherOptions(convention="tf", task=task))
    images = 0.01 * torch.rand(16, 1, 16, 16)
    before, after = (teacher.scores(own).abs().mean() for own in (images, confident_images(teacher, images)))
    assert after > before + 1


def test_none_is_moved_that_costs_queries_or_minutes(save: Save) -> None:
    images = 0.1 * torch.rand(16, 1, 16, 16)
    path = save(halves(400.0))
    counted = load_onnx_teacher(path, TeacherOptions(convention="tf", max_queries=100))
    assert torch.equal(confident_images(counted, images), images) and counted.queries == 0
    large = load_onnx_teacher(path, TeacherOptions(convention="tf"))
    large.spec = replace(large.spec, macs=10**13)
    assert torch.equal(confident_images(large, images), images)
    large.spec = replace(large.spec, macs=10**9)
    assert len(confident_images(large, images.repeat(8, 1, 1, 1))) == 25


def test_ranges_are_taken_from_images_the_teacher_is_sure_of() -> None:
    teacher = load_onnx_teacher(EXAMPLE / "teacher.onnx", TeacherOptions(mean=(0.1307,), std=(0.3081,)))
    study = study_teacher(teacher)
    drawn = study.fitting_images(128, mixes=False)
    before, after = (sureness(teacher, own).quantile(0.2) for own in (drawn, study.ranging_images))
    assert before < 0.7 and after > 0.9
