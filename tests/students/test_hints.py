"""The teacher's feature maps beside those of a student of another architecture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgedafl.config import CompressConfig
from edgedafl.distill import METHODS, Budget, Distiller, settings_of
from edgedafl.graph.bottlenecks import Bottleneck
from edgedafl.stages import StudentBuilder, choose_student
from edgedafl.students import HintLoss, Student, build_student
from edgedafl.students.features.extractor import FeatureExtractor, module_bottlenecks
from edgedafl.students.features.hints import pairs_of
from edgedafl.students.features.loss import relative_error
from edgedafl.targets import find_target
from edgedafl.teachers import Teacher, TeacherOptions, load_onnx_teacher

PIXELS = TeacherOptions(input_range=(0.0, 1.0))


def point(name: str, side: int) -> Bottleneck:
    return Bottleneck(name, 8, (side, side))


def paired(teacher: list[Bottleneck], student: list[Bottleneck]) -> list[tuple[str, str]]:
    return [(pair.teacher.name, pair.student.name) for pair in pairs_of(teacher, student)]


def chosen(teacher: Teacher, name: str = "resnet8", **options: object) -> Student:
    config = CompressConfig(student=name, **options)  # type: ignore[arg-type]
    return choose_student(config, teacher, find_target(config.target), "int8", StudentBuilder(teacher))


def test_maps_of_one_size_are_paired_in_order_and_the_last_in_any_case() -> None:
    teacher = [point("a", 16), point("b", 16), point("c", 16), point("d", 8)]
    assert paired(teacher, [point("x", 16), point("y", 8)]) == [("c", "x"), ("d", "y")]
    assert paired(teacher, [point("x", 16), point("y", 16)]) == [("a", "x"), ("c", "y"), ("d", "y")]
    (last,) = pairs_of(teacher, [point("x", 7)])
    assert (last.teacher.name, last.size) == ("d", (7, 7))


def test_maps_from_many_channels_to_few_move_in_smaller_steps() -> None:
    few, many = Bottleneck("few", 16, (8, 8)), Bottleneck("many", 64, (8, 8))
    (narrow,), (wide,), (equal,) = pairs_of([few], [many]), pairs_of([many], [few]), pairs_of([many], [many])
    assert (narrow.slope, wide.slope, equal.slope) == (0.5, 1.0, 1.0)


def test_maps_that_hardly_vary_do_not_weigh_without_bound() -> None:
    varied = torch.randn(1000) + 1
    expected = 1 / varied.var()
    assert relative_error(varied + 1, varied) == pytest.approx(float(expected), rel=1e-4)
    flat = 3 + 1e-3 * torch.randn(1000)
    assert relative_error(flat + 3, flat) == pytest.approx(4, rel=1e-2)


def test_a_watched_student_answers_as_before_with_its_own_weights() -> None:
    student = build_student("resnet8", (3, 32, 32), 10).module.train()
    traced, points = module_bottlenecks(student, (3, 32, 32))
    assert [(p.channels, p.size) for p in points] == [(16, (32, 32)), (16, (32, 32)), (32, (16, 16)), (64, (8, 8))]
    watched = FeatureExtractor(traced, [p.name for p in points])
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(watched(images), student(images))
    seen = watched.take_features()
    assert [tuple(value.shape[1:]) for value in seen.values()] == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert watched.take_features() == {}
    assert {id(p) for p in watched.parameters()} == {id(p) for p in student.parameters()}


def test_distances_begin_with_the_teachers_own_size_and_training_brings_them_down(bn_onnx: Path) -> None:
    teacher = load_onnx_teacher(bn_onnx, PIXELS)
    module = build_student("resnet8", teacher.spec.input_shape, teacher.spec.num_classes).module.train()
    hints = HintLoss(teacher.network(), module, teacher.spec.input_shape)
    images = torch.rand(32, *teacher.spec.input_shape)
    optimizer = torch.optim.Adam([*module.parameters(), *hints.learned.parameters()], 1e-2)
    distances = []
    for _ in range(40):
        hints.extractor(images)
        distance = hints.distance(hints.teacher_features(images), hints.take_features())
        distances.append(float(distance.detach()))
        optimizer.zero_grad()
        distance.backward()
        optimizer.step()
    wanted = hints.teacher_features(images)
    values = [F.adaptive_avg_pool2d(wanted[pair.teacher.name], pair.size) for pair in hints.pairs]
    expected = torch.stack([value.square().mean() / value.var() for value in values]).mean()
    assert distances[0] == pytest.approx(float(expected), rel=1e-5)
    assert distances[-1] < 0.4
    assert torch.allclose(hints.teacher_features(images)["logits"], teacher.scores(images), atol=1e-4)


def test_only_methods_that_compare_layers_look_into_the_teacher(bn_onnx: Path) -> None:
    teacher = load_onnx_teacher(bn_onnx, PIXELS)
    assert isinstance(chosen(teacher, method="fast").layers, HintLoss)
    assert chosen(teacher, method="dafl").layers is None


def test_a_teacher_that_may_not_be_asked_freely_gives_no_hints(bn_onnx: Path) -> None:
    options = TeacherOptions(input_range=(0.0, 1.0), max_queries=50_000)
    assert chosen(load_onnx_teacher(bn_onnx, options), method="fast").layers is None


def test_a_student_whose_way_depends_on_the_image_learns_from_answers_alone(bn_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, shape, classes):\n"
        "        super().__init__()\n"
        "        self.conv, self.fc = nn.Conv2d(shape[0], 4, 3), nn.Linear(4, classes)\n"
        "    def forward(self, x):\n"
        "        y = self.conv(x)\n"
        "        return self.fc((y if y.sum() > 0 else -y).mean((2, 3)))\n"
        "def build(input_shape, num_classes):\n"
        "    return Net(input_shape, num_classes)\n"
    )
    teacher = load_onnx_teacher(bn_onnx, PIXELS)
    assert chosen(teacher, f"{tmp_path / 'net.py'}:build", method="fast").layers is None


def distiller(teacher: Teacher, steps: int, checkpoint: Path | None = None) -> Distiller:
    torch.manual_seed(0)
    student = chosen(teacher, method="fast")
    assert student.layers is not None
    _, default = settings_of("fast", teacher)
    recipe = replace(default.recipe, student_steps=4, student_batch=32, begin=64)
    settings = replace(default, channels=8, batch=64, recipe=recipe)
    return Distiller(
        teacher,
        student,
        METHODS["fast"].build(teacher, settings=settings),
        budget=Budget(steps=steps),
        checkpoint=checkpoint,
    )


def test_what_is_learned_beside_the_student_is_resumed_and_not_exported(bn_onnx: Path, tmp_path: Path) -> None:
    teacher = load_onnx_teacher(bn_onnx, PIXELS)
    run = distiller(teacher, 20, tmp_path / "state.checkpoint")
    outcome = run.run()
    learned = run.trainer._projections.state_dict()
    assert outcome.recoveries == ()
    assert 0 < max(float(value.abs().max()) for value in learned.values()) < 10
    again = distiller(load_onnx_teacher(bn_onnx, PIXELS), 20, tmp_path / "state.checkpoint")
    resumed = again.run(resume=True)
    for name, value in again.trainer._projections.state_dict().items():
        assert torch.equal(value, learned[name]), name
    assert set(outcome.student.state_dict()) == set(resumed.student.state_dict())
    plain = build_student("resnet8", teacher.spec.input_shape, teacher.spec.num_classes)
    assert set(outcome.student.state_dict()) == set(plain.module.state_dict())


class _Shift(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(1))
        self.conv, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.conv(x + self.shift).mean((2, 3)))
        return out


def test_a_module_with_values_of_its_own_is_traced() -> None:
    traced, points = module_bottlenecks(_Shift(), (1, 8, 8))
    assert [(p.channels, p.size) for p in points] == [(4, (8, 8))]
    assert FeatureExtractor(traced, [points[0].name])(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
