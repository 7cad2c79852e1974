"""Students that begin as their teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgedafl.config import CompressConfig
from edgedafl.distill import METHODS, Budget, Distiller, settings_of
from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.export import student_to_onnx
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.graph.trainable import TrainableGraph
from edgedafl.stages import Ladder, StudentBuilder, build_ladder, builder, pruner_of, study_teacher
from edgedafl.students import training_format
from edgedafl.targets import find_target
from edgedafl.teachers import Teacher, TeacherOptions, load_teacher
from tests.conftest import EXAMPLE, TinyNet, export

PIXELS = TeacherOptions(input_range=(0.0, 1.0))
DIGITS = TeacherOptions(mean=(0.1307,), std=(0.3081,))


def example() -> Teacher:
    return load_teacher(str(EXAMPLE / "teacher.onnx"), DIGITS)


def students_of(teacher: Teacher, config: CompressConfig) -> StudentBuilder:
    return builder(config, teacher, study_teacher(teacher), find_target(config.target))


def rungs(teacher: Teacher, config: CompressConfig) -> tuple[Ladder, StudentBuilder]:
    study, target = study_teacher(teacher), find_target(config.target)
    build = builder(config, teacher, study, target)
    return build_ladder(build, study, target, "int8", config), build


def accuracy(module: nn.Module, teacher: Teacher) -> float:
    data = np.load(EXAMPLE / "sample.npz")
    images = teacher.spec.preprocess.from_pixels(torch.from_numpy(data["images"]))
    with torch.no_grad():
        return float((module.eval()(images).argmax(1).numpy() == data["labels"]).mean())


def test_the_whole_teacher_is_a_student_too() -> None:
    teacher = example()
    student = pruner_of(teacher).student("pruned:1")
    images = torch.randn(5, 1, 32, 32)
    assert torch.allclose(student.module.eval()(images), teacher.scores(images), atol=1e-4)
    assert student.spec.parameters == teacher.spec.parameters
    assert student.spec.macs == teacher.spec.macs


def test_weights_and_work_fall_with_the_square_of_the_width() -> None:
    pruner = pruner_of(example())
    specs = [pruner.student(f"pruned:{width}").spec for width in (0.25, 0.5, 0.75)]
    for spec in specs:
        assert 0.6 < spec.parameters / (61_706 * spec.width**2) < 1.4, spec
        assert 0.6 < spec.macs / (416_520 * spec.width**2) < 2.5, spec
    assert [s.name for s in specs] == ["pruned:0.25", "pruned:0.5", "pruned:0.75"]


def test_three_quarters_of_the_channels_keep_what_the_teacher_knows_before_any_training() -> None:
    teacher = example()
    assert accuracy(pruner_of(teacher).student("pruned:0.75").module, teacher) > 0.95


def test_training_mends_what_the_cut_broke_and_the_student_is_an_onnx_model() -> None:
    teacher = example()
    torch.manual_seed(0)
    student = pruner_of(teacher).student("pruned:0.5")
    before = accuracy(student.module, teacher)
    name, settings = settings_of("auto", teacher)
    outcome = Distiller(
        teacher, student, METHODS[name].build(teacher, settings=settings), budget=Budget(steps=12)
    ).run()
    assert accuracy(outcome.student, teacher) > max(0.93, before)
    model = student_to_onnx(outcome.student, (1, 32, 32))
    images = torch.randn(3, 1, 32, 32)
    expected = outcome.student(images).detach().numpy()
    assert np.allclose(run_batched(open_session(model), images.numpy()), expected, atol=1e-4)


def test_a_pytorch_teacher_is_cut_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mynet.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n    torch.manual_seed(1)\n"
        "    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 196, 3),"
        " nn.Softmax(1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    teacher = load_teacher("mynet:make", TeacherOptions(input_shape=(1, 16, 16), input_range=(0, 1)))
    assert teacher.spec.output == "probabilities"
    student = pruner_of(teacher).student("pruned:1")
    images = torch.rand(4, 1, 16, 16)
    shares = torch.softmax(student.module.eval()(images), 1)
    assert torch.allclose(shares, teacher.scores(images).exp(), atol=1e-4)


def test_the_automatic_choice_is_a_quarter_of_the_teacher_cut_out_of_it() -> None:
    ladder, _ = rungs(example(), CompressConfig())
    chosen = ladder.candidates[ladder.chosen]
    assert chosen.name == "kept:0.25"
    assert chosen.parameters <= 61_706 / 4
    assert chosen.expected is not None and chosen.expected.fidelity >= 0.95
    assert [c.size for c in ladder.candidates] == sorted(c.size for c in ladder.candidates)
    assert ladder.candidates[-1].share == 1.0


def test_what_a_student_does_not_explain_grows_with_what_was_cut() -> None:
    pruner = pruner_of(example())
    left = [pruner.unexplained(pruner.student(f"pruned:{width}")) for width in (1.0, 0.75, 0.5, 0.25)]
    assert left[0] < 1e-6
    assert left == sorted(left)
    assert 0.02 < left[2] < 0.2  # refitted


def test_of_a_tiny_teacher_more_is_kept(tiny_onnx: Path) -> None:
    teacher = load_teacher(str(tiny_onnx), PIXELS)
    ladder, _ = rungs(teacher, CompressConfig(target="rpi5"))
    assert 0.3 < ladder.candidates[0].share < 0.66


def test_a_size_limit_chooses_the_width() -> None:
    ladder, build = rungs(example(), CompressConfig(max_size=45_000, weight_bits=8))
    (chosen,) = ladder.candidates
    assert 0.5 < chosen.share < 0.75
    assert 38_000 < chosen.size <= 45_000
    assert build(chosen.name).spec.parameters == pytest.approx(chosen.share * 61_706, rel=1e-3)
    with pytest.raises(UsageError, match="the smallest student needs about"):
        rungs(example(), CompressConfig(max_size=1_000))


def test_teachers_that_only_answer_get_students_of_another_make(tiny_onnx: Path) -> None:
    teacher = load_teacher(str(tiny_onnx), TeacherOptions(input_range=(0.0, 1.0), access="scores"))
    assert students_of(teacher, CompressConfig()).names[0].startswith("lenet5")
    with pytest.raises(UnsupportedModelError, match="gives scores only"):
        students_of(teacher, CompressConfig(student="pruned:0.5"))("pruned:0.5")


def test_a_small_query_limit_is_not_spent_on_looking_into_the_teacher() -> None:
    options = TeacherOptions(mean=(0.1307,), std=(0.3081,), max_queries=2000)
    teacher = load_teacher(str(EXAMPLE / "teacher.onnx"), options)
    before = teacher.queries
    build = students_of(teacher, CompressConfig())
    assert teacher.queries - before <= 0.1 * 2000
    assert build("pruned:0.5").spec.parameters < 61_706 / 3  # its layers can be read without asking it


def test_a_network_without_a_channel_to_cut_is_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = export(nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), tmp_path / "linear.onnx")
    build = students_of(load_teacher(str(path), PIXELS), CompressConfig())
    assert build.names[0].startswith("lenet5")
    assert "No channel of the teacher can be cut" in caplog.text


@pytest.mark.parametrize("width", ["0", "1.5", "half", "-1"])
def test_widths_that_make_no_sense_are_refused(width: str, tiny_onnx: Path) -> None:
    teacher = load_teacher(str(tiny_onnx), PIXELS)
    with pytest.raises(UsageError, match="not a share of the teacher's channels"):
        students_of(teacher, CompressConfig(student=f"pruned:{width}"))


def test_strided_pointwise_layers_of_few_channels_stay_contiguous(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1, 2), nn.ReLU(), nn.Flatten(),
                        nn.Linear(8 * 64, 3))  # fmt: skip
    path = export(net, tmp_path / "pointwise.onnx")
    narrow = TrainableGraph(load_teacher(str(path), PIXELS).network())
    wide = TrainableGraph(load_teacher(str(export(TinyNet(), tmp_path / "tiny.onnx")), PIXELS).network())
    assert training_format(narrow, "cpu") is torch.contiguous_format
    assert training_format(wide, "cpu") is torch.channels_last


@pytest.mark.parametrize(("classes", "task"), [(1, "binary"), (3, "multi-label")])
def test_binary_and_multi_label_teachers_are_cut_too(classes: int, task: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = export(TinyNet(classes=classes), tmp_path / "tiny.onnx")
    teacher = load_teacher(str(path), TeacherOptions(input_range=(0.0, 1.0), task=task))
    student = pruner_of(teacher).student("pruned:0.5")
    name, settings = settings_of("auto", teacher, inherited=True)
    synthesizer = METHODS[name].build(teacher, settings=settings)
    outcome = Distiller(teacher, student, synthesizer, budget=Budget(steps=2)).run()
    model = student_to_onnx(outcome.student, (1, 16, 16))
    images = torch.rand(3, 1, 16, 16)
    scores = run_batched(open_session(model), images.numpy())
    assert scores.shape == (3, classes)
    assert np.allclose(scores, outcome.student(images).detach().numpy(), atol=1e-4)
