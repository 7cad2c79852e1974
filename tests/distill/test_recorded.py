"""A step that is to be recorded may move nothing between host and device; tensors without data tell whether it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgedafl.distill import DistributedContext, settings_of
from edgedafl.distill.methods import METHODS
from edgedafl.distill.synthesizers.generators import PublishedGenerator
from edgedafl.distill.synthesizers.inner_step import InnerStep, Weights
from edgedafl.distill.training.augment import Augmentation
from edgedafl.distill.training.compute import Compute
from edgedafl.distill.training.pool import Pool
from edgedafl.distill.training.trainer import StudentTrainer
from edgedafl.preprocess import Preprocess
from edgedafl.quantize import observe_activations, quantize_graph
from edgedafl.stages import pruner_of
from edgedafl.students import HintLoss, Student, build_student
from edgedafl.targets import find_target
from edgedafl.teachers import Teacher, TeacherOptions, load_onnx_teacher
from tests.conftest import export
from tests.copies import META, copies


def residual(folder: Path) -> Teacher:
    torch.manual_seed(0)
    net = build_student("resnet8", (3, 32, 32), 10).module
    net(torch.rand(64, 3, 32, 32))
    return load_onnx_teacher(export(net, folder / "net.onnx", (3, 32, 32), fold=False), TeacherOptions(mean=(0.5,)))


class Mobile(nn.Module):
    """What graphs of other origins have: clips, products with constants, pooling over space, reshapes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.SiLU())
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.body(x * 2 - 1)
        scores: Tensor = self.head((maps * torch.sigmoid(maps.mean((2, 3), keepdim=True)) + 0.5).mean((2, 3)))
        return scores


def mobile(folder: Path) -> Teacher:
    torch.manual_seed(0)
    return load_onnx_teacher(export(Mobile().eval(), folder / "mobile.onnx", (3, 32, 32)), TeacherOptions(mean=(0.5,)))


def integers(folder: Path) -> Teacher:
    torch.manual_seed(0)
    import onnx

    model = onnx.load(export(Mobile().eval(), folder / "float.onnx", (3, 32, 32)))
    images = np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype(np.float32)
    onnx.save(
        quantize_graph(model, find_target("x86").scheme, observe_activations(model, images), "min-max"),
        folder / "integers.onnx",
    )
    return load_onnx_teacher(folder / "integers.onnx", TeacherOptions(mean=(0.5,)))


def plain(teacher: Teacher) -> Student:
    return build_student("resnet8", teacher.spec.input_shape, teacher.spec.num_classes)


def hinted(teacher: Teacher) -> Student:
    student = plain(teacher)
    return replace(student, layers=HintLoss(teacher.network(), student.module, teacher.spec.input_shape))


def pruned(teacher: Teacher) -> Student:
    return pruner_of(teacher).student("pruned:0.5")


@pytest.mark.parametrize(
    ("make", "student_of"),
    [(residual, plain), (residual, hinted), (residual, pruned), (mobile, hinted), (mobile, pruned), (integers, plain)],
)
def test_a_students_step_stays_on_its_device(
    make: Callable[[Path], Teacher], student_of: Callable[[Teacher], Student], tmp_path: Path
) -> None:
    teacher = make(tmp_path)
    student = student_of(teacher)
    method, settings = settings_of("adversarial", teacher, inherited=student.spec.inherited)
    recipe = replace(settings.recipe, layers=5.0, student_batch=4)
    synthesizer = METHODS[method].build(teacher, settings=replace(settings, recipe=recipe))
    trainer = StudentTrainer(student, teacher, synthesizer, DistributedContext(), Compute(), 1 << 20)
    assert (student.layers is None) == (student_of is plain)
    for part in (teacher, trainer.student, trainer._projections, student.layers):
        if part is not None:
            part.to(META)
    images = torch.zeros(4, 3, 32, 32, device=META)
    assert copies(lambda: trainer._step(images)) == []
    assert copies(lambda: trainer._step(images, torch.zeros(4, 10, device=META))) == []


def test_the_step_that_fits_a_generator_to_a_batch_stays_on_its_device(tmp_path: Path) -> None:
    teacher = residual(tmp_path)
    generator = PublishedGenerator((3, 32, 32), 16, 8, teacher.spec.preprocess, "pixels")
    student, weights = plain(teacher).module, Weights(10.0, 0.9, 0.5, 1.0)
    step = InnerStep(generator, teacher, student, weights, Augmentation(), records=False)
    for part in (teacher, step.generator, student):
        part.to(META)
    codes, classes = torch.zeros(4, 16, device=META), torch.zeros(4, dtype=torch.int64, device=META)
    moments = step(codes, classes, None).moments
    assert copies(lambda: step(codes, classes, moments)) == []


def test_drawing_and_varying_images_stay_on_the_device() -> None:
    preprocess = Preprocess.from_mean_std((0.5, 0.4, 0.3), (0.2, 0.2, 0.2), 3)
    pool = Pool(64, (3, 8, 8), 10, preprocess, META)
    pool.add(torch.zeros(64, 3, 8, 8, device=META), torch.zeros(64, 10, device=META))
    varied = Augmentation(1, True, preprocess.low)
    assert copies(lambda: varied._each(pool.draw(16)[0])) == []


def test_a_copy_to_the_device_is_noticed() -> None:
    assert copies(lambda: torch.zeros(3, device=META) + torch.ones(3).to(META)) == ["aten._to_copy.default"]
