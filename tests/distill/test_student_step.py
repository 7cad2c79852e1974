"""One student step: the same gradients in pieces as at once, and how large a piece may be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgedafl.distill.synthesizers.procedural import ProceduralSettings
from edgedafl.distill.training.compute import Compute
from edgedafl.distill.training.student_step import StudentStep, images_per_pass
from edgedafl.stages.students import pruner_of
from edgedafl.students import build_student
from edgedafl.teachers import Teacher, load_onnx_teacher

CPU = torch.device("cpu")


def gradients(teacher: Teacher, at_once: int, *, features: bool, asks: bool) -> tuple[Tensor, list[Tensor], int]:
    """Loss, the student's gradients, and how often the teacher was asked, of ten images."""
    torch.manual_seed(0)
    student = pruner_of(teacher).student("pruned:0.5")
    layers = student.layers if features else None
    module = student.module.train()
    forward = module if layers is None else layers.extractor
    recipe = replace(ProceduralSettings().recipe, layers=20.0)
    step = StudentStep(teacher, forward, layers, recipe, Compute("cpu"), module.zero_grad, at_once)
    images = torch.rand(10, *teacher.spec.input_shape)
    logits = None if asks else teacher.scores(images)
    before = teacher.queries
    loss, answers = step(images, logits)
    assert answers.shape == (10, 3)
    assert teacher.queries - before == step.rows_asked(10, asks=asks)
    found = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    return loss, found, teacher.queries - before


@pytest.mark.parametrize("asks", [False, True])
def test_pieces_add_up_to_the_gradients_of_the_batch(asks: bool, tiny_teacher: Teacher) -> None:
    whole = gradients(tiny_teacher, 10, features=False, asks=asks)
    pieces = gradients(tiny_teacher, 4, features=False, asks=asks)
    torch.testing.assert_close(whole[0], pieces[0])
    torch.testing.assert_close(whole[1], pieces[1])
    assert whole[2] == pieces[2] == (10 if asks else 0)


def test_compared_layers_are_judged_by_their_own_piece(bn_onnx: Path) -> None:
    """The size of what a layer makes is taken from four images instead of ten: nearly the same direction."""
    teacher = load_onnx_teacher(bn_onnx)
    whole, pieces = (gradients(teacher, at_once, features=True, asks=True)[1] for at_once in (10, 4))
    first, second = (torch.cat([g.flatten() for g in found]) for found in (whole, pieces))
    assert torch.cosine_similarity(first, second, 0) > 0.95


def test_a_piece_is_as_large_as_memory_allows() -> None:
    small = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    assert images_per_pass(small, (3, 32, 32), 48, CPU, features=True) == 48
    # 64 maps of 256 x 256 floats, eight times: 134 MB an image of 1.6 GB.
    large = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU())
    assert images_per_pass(large, (3, 256, 256), 48, CPU, features=True) == 12
    assert images_per_pass(large, (3, 256, 256), 48, CPU, features=False) == 24
    assert images_per_pass(large, (3, 1024, 1024), 48, CPU, features=False) == 4


def test_batch_statistics_are_of_the_whole_batch() -> None:
    student = build_student("resnet8", (3, 32, 32), 10).module
    assert any(isinstance(m, nn.BatchNorm2d) for m in student.modules())
    assert images_per_pass(student, (3, 1024, 1024), 48, CPU, features=True) == 48
    assert images_per_pass(nn.Conv2d(3, 64, 3), (3, 1024, 1024), 48, torch.device("cuda"), features=True) == 48
