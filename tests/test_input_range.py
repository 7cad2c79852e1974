"""How pixels go in where it is not declared it: what the model tells, what labels tell, and what is said otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgedafl.distill.monitoring.preflight import check_teacher
from edgedafl.distill.synthesizers.priors import dead_leaves
from edgedafl.errors import UsageError
from edgedafl.files.labelled import LabelledSource
from edgedafl.files.pictures import Pictures
from edgedafl.preprocess import CONVENTIONS, Preprocess
from edgedafl.stages.check_input import check_input, look_at_pictures
from edgedafl.teachers import TeacherOptions, load_onnx_teacher
from edgedafl.teachers.input_range import _fitting
from tests.conftest import tiny_text

Save = Callable[..., Path]


def brightness() -> onnx.ModelProto:
    """Three classes by the mean of a picture that goes in as -1 to 1: below -0.33, up to 0.33, above."""
    model = tiny_text("f = Flatten(image) m = MatMul(f, mean) s = Mul(m, slopes) scores = Add(s, starts)")
    values = {"mean": np.full((256, 1), 1 / 256), "slopes": [[-30.0, 0, 30]], "starts": [[-10.0, 0, -10]]}
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    return model


def labelled(folder: Path, order: tuple[int, ...] = (0, 1, 2)) -> Path:
    levels = np.random.default_rng(0).integers(0, 256, 120)
    classes = np.digitize(levels / 127.5 - 1, [-1 / 3, 1 / 3])
    images = np.repeat(levels, 256).reshape(-1, 1, 16, 16).astype(np.uint8)
    np.savez(folder / "eval.npz", images=images, labels=np.array(order)[classes])
    return folder / "eval.npz"


def test_labels_decide_where_nobody_says_it(save: Save, tmp_path: Path) -> None:
    teacher = load_onnx_teacher(save(brightness()))
    assert teacher.spec.preprocess.is_guess
    check_input(teacher, LabelledSource(labelled(tmp_path)))
    assert teacher.spec.preprocess.low == (-1.0,)
    assert "fits the labels best (100.0% against" in teacher.spec.preprocess.origin
    assert not teacher.spec.preprocess.is_guess


def spots(levels: tuple[float, float, float]) -> onnx.ModelProto:
    """Three classes by the mean of a picture fed as -1 to 1, at three levels; steep, so that other maps see noise."""
    model = tiny_text("f = Flatten(image) m = MatMul(f, mean) s = Mul(m, slopes) scores = Add(s, starts)")
    slopes = np.array([[400.0 * level for level in levels]])
    starts = np.array([[-200.0 * level**2 for level in levels]])
    for name, value in {"mean": np.full((256, 1), 1 / 256), "slopes": slopes, "starts": starts}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    return model


def test_unlabelled_pictures_tell_the_likelier_map(save: Save) -> None:
    """Of dim pictures -1 to 1 sees three classes, 0 to 1 one and the same."""
    random = np.random.default_rng(0)
    images = (random.integers(0, 3, (60, 1, 1, 1)) * 60 + random.integers(0, 9, (60, 1, 20, 20))).astype(np.uint8)
    pictures = Pictures(images, (16, 16), "here", 60)
    path = save(spots((-1.0, -0.5, 0.0)))
    teacher = load_onnx_teacher(path)
    look_at_pictures(teacher, pictures)
    assert teacher.spec.preprocess.low == (-1.0,)
    assert teacher.spec.preprocess.is_guess and "steadiest" in teacher.spec.preprocess.origin
    declared = load_onnx_teacher(path, TeacherOptions(convention="unit"))
    look_at_pictures(declared, pictures)
    assert declared.spec.preprocess == Preprocess.named("unit", 1)
    few = load_onnx_teacher(path)
    look_at_pictures(few, Pictures(images[:19], (16, 16), "here", 19))
    assert few.spec.preprocess.origin == "assumed"


def test_labels_change_nothing_that_was_declared(save: Save, tmp_path: Path) -> None:
    teacher = load_onnx_teacher(save(brightness()), TeacherOptions(mean=(0.45,), std=(0.5,)))
    check_input(teacher, LabelledSource(labelled(tmp_path)))
    assert teacher.spec.preprocess == Preprocess.from_mean_std((0.45,), (0.5,), 1)


def test_classes_in_another_order_are_noticed(save: Save, tmp_path: Path) -> None:
    teacher = load_onnx_teacher(save(brightness()), TeacherOptions(convention="tf"))
    with pytest.raises(UsageError, match="which is chance") as caught:
        check_input(teacher, LabelledSource(labelled(tmp_path, order=(1, 2, 0))))
    assert "another numbering of the classes" in caught.value.hint


def test_a_rare_class_that_is_known_is_not_chance(save: Save, tmp_path: Path) -> None:
    teacher = load_onnx_teacher(save(brightness()), TeacherOptions(convention="tf"))
    levels = np.array([10] * 190 + [250] * 10)
    images = np.repeat(levels, 256).reshape(-1, 1, 16, 16).astype(np.uint8)
    for rare, refused in ((2, False), (1, True)):  # 95 % are answered right either way
        labels = np.where(levels == 10, 0, rare)
        np.savez(tmp_path / "rare.npz", images=images, labels=labels)
        if refused:
            with pytest.raises(UsageError, match="which is chance"):
                check_input(teacher, LabelledSource(tmp_path / "rare.npz"))
        else:
            check_input(teacher, LabelledSource(tmp_path / "rare.npz"))


def test_labels_that_fit_with_blue_first_name_the_flag(save: Save, tmp_path: Path) -> None:
    """Three classes by how blue a picture is, for a network that takes blue first, less the mean."""
    model = tiny_text("c = Slice(data, zero, one, one) f = Flatten(c) m = MatMul(f, mean) s = Mul(m, slopes) "
                      "scores = Add(s, starts)", inputs="float[N,3,16,16] data")  # fmt: skip
    values = {"mean": np.full((256, 1), 1 / 256), "slopes": [[-1.0, 0, 1]], "starts": [[-40.0, 0, -40]]}
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    for name, number in (("zero", 0), ("one", 1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([number], np.int64), name))
    random = np.random.default_rng(0)
    levels = random.integers(0, 256, (120, 3))
    blue = levels[:, 2] - 103.939
    images = np.broadcast_to(levels[:, :, None, None], (120, 3, 16, 16)).astype(np.uint8)
    labels = np.where(blue < -40, 0, np.where(blue > 40, 2, 1))
    np.savez(tmp_path / "eval.npz", images=images, labels=labels)
    teacher = load_onnx_teacher(save(model))
    with pytest.raises(UsageError, match="if blue goes first") as caught:
        check_input(teacher, LabelledSource(tmp_path / "eval.npz"))
    assert caught.value.hint == "Say it: --preprocess caffe."
    check_input(
        load_onnx_teacher(save(model), TeacherOptions(convention="caffe")), LabelledSource(tmp_path / "eval.npz")
    )


def test_what_is_guessed_is_said(save: Save) -> None:
    path = save(tiny_text("f = Flatten(image) scores = Gemm<transB=1>(f, w, b)"))
    assert "--preprocess" in check_teacher(load_onnx_teacher(path)).warning
    assert check_teacher(load_onnx_teacher(path, TeacherOptions(convention="unit"))).warning == ""


def test_classes_that_hardly_occur_are_said(save: Save) -> None:
    model = tiny_text("f = Flatten(image) m = MatMul(f, mean) s = Mul(m, slopes) scores = Add(s, starts)")
    values = {"mean": np.full((256, 1), 1 / 256), "slopes": [[0.0, 50]], "starts": [[0.0, -49.9]]}
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    path = save(model)
    declared = check_teacher(load_onnx_teacher(path, TeacherOptions(convention="unit"))).warning
    assert declared.startswith(
        "the teacher answers class 0 to 100% of varied test images. Its other classes hardly occur"
    )
    assert "--images" in declared and "nothing useful" not in declared
    guessed = check_teacher(load_onnx_teacher(path)).warning
    assert "Either its other classes are rare" in guessed and "--preprocess" in guessed


@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions_are_what_frameworks_do(name: str) -> None:
    black, white = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    known = Preprocess.named(name, 3)
    ends = {"unit": (0, 1), "tf": (-1, 1), "raw": (0, 255), "imagenet": (-0.485 / 0.229, (1 - 0.485) / 0.229)}.get(
        name, (-123.68, 255 - 123.68)
    )
    found = [float(known.to_model(unit)[0, 0, 0, 0]) for unit in (black, white)]
    assert found == pytest.approx(ends, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"convention": "keras"}, "no preprocessing 'keras'"),
        ({"convention": "imagenet"}, "three channels"),
        ({"convention": "tf", "mean": (0.5,)}, "beside --input-mean"),
    ],
)
def test_nonsense_is_refused(options: dict[str, object], words: str, save: Save) -> None:
    with pytest.raises(UsageError, match=words):
        load_onnx_teacher(save(brightness()), TeacherOptions(**options))


def normalized(convention: str, channels: int) -> onnx.ModelProto:
    """A convolution and the BatchNorm behind it, whose statistics are those of drawn pictures."""
    random = np.random.default_rng(3)
    pictures = Preprocess.named(convention, channels).to_model(dead_leaves(64, (channels, 32, 32), seeded()))
    kernels = random.normal(size=(8, channels, 3, 3)).astype(np.float32)
    made = torch.nn.functional.conv2d(pictures, torch.from_numpy(kernels))
    text = "c = Conv(image, k) n = BatchNormalization(c, s, z, m, v) r = Relu(n) g = GlobalAveragePool(r) "
    model = tiny_text(text + "f = Flatten(g) scores = MatMul(f, head)", f"float[N,{channels},32,32] image")
    statistics = {"s": np.ones(8), "z": np.zeros(8), "m": made.mean((0, 2, 3)), "v": made.var((0, 2, 3))}
    for name, value in {"k": kernels, "head": random.normal(size=(8, 3)), **statistics}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    return model


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize(("convention", "channels"), [("unit", 1), ("tf", 1), ("raw", 1), ("tf", 3), ("imagenet", 3)])
def test_statistics_of_the_first_batch_norm_tell_the_range(save: Save, convention: str, channels: int) -> None:
    teacher = load_onnx_teacher(save(normalized(convention, channels)))
    assert teacher.spec.preprocess.low == pytest.approx(Preprocess.named(convention, channels).low)
    assert "BatchNorm's statistics fit" in teacher.spec.preprocess.origin


def test_two_ranges_that_fit_alike_are_a_guess() -> None:
    candidates = [Preprocess.named(name, 1, CONVENTIONS[name]) for name in ("unit", "tf", "raw")]
    decided = _fitting(candidates, [3.0, 1.0, 90.0])
    assert decided.low == (-1.0,) and not decided.is_guess
    undecided = _fitting(candidates, [1.0, 1.1, 90.0])
    assert undecided.low == (0.0,) and undecided.is_guess and "-1 to 1" in undecided.origin


def test_weights_written_as_nodes_are_weights(save: Save) -> None:
    """As PaddlePaddle writes them: they are counted, and their statistics found."""
    stored = normalized("tf", 3)
    model = onnx.ModelProto.FromString(stored.SerializeToString())
    nodes = [onnx.helper.make_node("Constant", [], [t.name], value=t) for t in stored.graph.initializer]
    del model.graph.initializer[:]
    for place, node in enumerate(nodes):
        model.graph.node.insert(place, node)
    first, second = load_onnx_teacher(save(stored, "a.onnx")), load_onnx_teacher(save(model, "b.onnx"))
    assert second.spec.batch_norms == 1 and second.spec.parameters == first.spec.parameters > 200
    assert second.spec.preprocess == first.spec.preprocess
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(second.scores(images), first.scores(images))
