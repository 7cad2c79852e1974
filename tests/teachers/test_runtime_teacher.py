"""ONNX files as black boxes, tasks, and input ranges that nobody declared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.teachers import RuntimeTeacher, TeacherOptions, load_onnx_teacher, load_teacher
from edgedafl.teachers.decode import to_logits
from edgedafl.teachers.input_range import baked_scale
from tests.conftest import LINEAR, TinyNet, export, tiny_text

SIGMOID = "f = Flatten<axis=1>(image) l = Gemm<transB=1>(f, w, b) scores = Sigmoid(l)"
LABELS = "f = Flatten<axis=1>(image) l = Gemm<transB=1>(f, w, b) scores = ArgMax<axis=1, keepdims=0>(l)"


def black_box(path: Path, access: str = "scores", **options: object) -> RuntimeTeacher:
    teacher = load_teacher(str(path), TeacherOptions(input_range=(0.0, 1.0), access=access, **options))
    assert isinstance(teacher, RuntimeTeacher)
    return teacher


def on_pixels(teacher, rows: int = 7) -> torch.Tensor:
    """Images that survive rounding to pixels."""
    pixels = torch.randint(0, 256, (rows, *teacher.spec.input_shape), dtype=torch.uint8)
    return teacher.spec.preprocess.from_pixels(pixels)


@pytest.mark.parametrize("fixed", [None, 1, 4])
def test_scores_are_those_of_the_open_model(tmp_path: Path, fixed: int | None) -> None:
    path = export(TinyNet(), tmp_path / "net.onnx", fixed=fixed)
    teacher, opened = black_box(path), load_onnx_teacher(path, TeacherOptions(input_range=(0.0, 1.0)))
    images = on_pixels(teacher)
    torch.testing.assert_close(teacher.scores(images), opened.scores(images), rtol=1e-4, atol=1e-5)
    assert teacher.queries == 7
    assert (teacher.spec.access, teacher.spec.has_features) == ("scores", False)
    teacher.scores(images[:3])
    assert teacher.queries == 7


def test_channels_last_and_flat_interfaces(save: Callable[..., Path]) -> None:
    plain = black_box(save(tiny_text(LINEAR), "plain.onnx"))
    last = "t = Transpose<perm=[0,3,1,2]>(image) f = Flatten(t) scores = Gemm<transB=1>(f, w, b)"
    flat = "scores = Gemm<transB=1>(image, w, b)"
    column = "r = Constant<value_ints=[-1, 256]>() f = Reshape(image, r) scores = Gemm<transB=1>(f, w, b)"
    images = on_pixels(plain)
    for text, declared in (
        (last, "float[N,16,16,1] image"),
        (flat, "float[N,256] image"),
        (column, "float[N,256,1] image"),
        (column, "float[1,256,1] image"),
    ):
        path = save(tiny_text(text, inputs=declared), "other.onnx")
        opened = load_onnx_teacher(path, TeacherOptions(input_range=(0.0, 1.0)))
        for other in (black_box(path), opened):
            assert other.spec.input_shape == (1, 16, 16)
            torch.testing.assert_close(other.scores(images), plain.scores(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tail", ["scores = Softmax(l)", "scores = LogSoftmax(l)"])
def test_probabilities_are_taken_back_to_logits(save: Callable[..., Path], tail: str) -> None:
    plain = black_box(save(tiny_text(LINEAR), "plain.onnx"))
    soft = black_box(save(tiny_text(f"f = Flatten(image) l = Gemm<transB=1>(f, w, b) {tail}"), "soft.onnx"))
    images = on_pixels(plain)
    a, b = (torch.log_softmax(t.scores(images), 1) for t in (plain, soft))
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert float(soft.scores(images).mean(1).abs().max()) < 1e-5


def test_labels_show_the_class_and_nothing_more(save: Callable[..., Path]) -> None:
    path = save(tiny_text(LINEAR))
    scores, labels = black_box(path), black_box(path, "labels")
    images = on_pixels(scores, 50)
    shown = labels.scores(images)
    assert torch.equal(shown.argmax(1), scores.scores(images).argmax(1))
    assert len(set(shown.flatten().round(decimals=4).tolist())) == 2
    heads = save(tiny_text(LABELS, outputs="int64[N] scores"), "labels.onnx")
    with pytest.raises(UsageError, match="class indices only"):
        black_box(heads)
    teacher = black_box(heads, classes=3)
    assert teacher.spec.access == "labels"
    assert torch.equal(teacher.scores(images).argmax(1), shown.argmax(1))
    with pytest.raises(UnsupportedModelError, match="answered the label 2; there are 2 classes"):
        black_box(heads, classes=2).scores(images)


def test_unsupported_operators_offer_the_black_box(save: Callable[..., Path]) -> None:
    text = "z = NonZero(image) c = Cast<to=1>(z) m = ReduceMean<keepdims=0>(c) f = Flatten(image) l = Gemm<transB=1>(f, w, b) scores = Add(l, m)"
    path = save(tiny_text(text))
    with pytest.raises(UnsupportedModelError) as caught:
        load_onnx_teacher(path)
    assert "--access scores" in caught.value.hint
    assert black_box(path).scores(torch.rand(2, 1, 16, 16)).shape == (2, 3)


def test_answers_that_change_are_refused(save: Callable[..., Path]) -> None:
    text = "f = Flatten(image) l = Gemm<transB=1>(f, w, b) r = RandomNormalLike(l) scores = Add(l, r)"
    with pytest.raises(UnsupportedModelError, match="different answers"):
        black_box(save(tiny_text(text)))


@pytest.mark.parametrize("access", ["gradient", "scores"])
def test_sigmoids_make_a_multi_label_task(save: Callable[..., Path], access: str) -> None:
    path = save(tiny_text(SIGMOID))
    teacher = load_teacher(str(path), TeacherOptions(input_range=(0.0, 1.0), access=access))
    plain = load_onnx_teacher(save(tiny_text(LINEAR), "plain.onnx"), TeacherOptions(input_range=(0.0, 1.0)))
    images = on_pixels(teacher)
    assert (teacher.spec.task, teacher.spec.output, teacher.spec.num_classes) == ("multi-label", "sigmoid", 3)
    torch.testing.assert_close(teacher.scores(images), plain.scores(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("tail", ["scores = Identity(l)", "scores = Sigmoid(l)"])
@pytest.mark.parametrize("access", ["gradient", "scores"])
def test_one_score_makes_a_binary_task(save: Callable[..., Path], tail: str, access: str) -> None:
    text = (
        f"f = Flatten(image) a = Gemm<transB=1>(f, w, b) i = Constant<value_ints=[0]>() l = Gather<axis=1>(a, i) {tail}"
    )
    path = save(tiny_text(text, outputs="float[N,1] scores"))
    teacher = load_teacher(str(path), TeacherOptions(input_range=(0.0, 1.0), access=access))
    assert (teacher.spec.task, teacher.spec.num_classes) == ("binary", 1)
    images = on_pixels(teacher)
    plain = load_onnx_teacher(save(tiny_text(LINEAR), "plain.onnx"), TeacherOptions(input_range=(0.0, 1.0)))
    torch.testing.assert_close(teacher.scores(images), plain.scores(images)[:, :1], rtol=1e-3, atol=1e-3)


def test_decoding() -> None:
    assert to_logits(np.array([[0.5, 0.5]]), "probabilities", "single-label", 2).tolist() == [[0, 0]]
    assert to_logits(np.array([[0.5]]), "sigmoid", "binary", 1).tolist() == [[0]]
    certain = to_logits(np.array([[1.0, 0.0]]), "probabilities", "single-label", 2)
    assert np.isfinite(certain).all() and certain[0, 0] > certain[0, 1]
    with pytest.raises(UnsupportedModelError, match="NaN"):
        to_logits(np.array([[np.nan]]), "logits", "binary", 1)


BAKED = {
    "division by 255": ("s = Constant<value = float {255.0}>() x = Div(image, s)", True),
    "multiplication by 1/255": ("s = Constant<value = float {0.003921569}>() x = Mul(image, s)", True),
    "mean of pixels": ("s = Constant<value = float {127.5}>() y = Sub(image, s) x = Div(y, s)", True),
    "mean and deviation of [0, 1]": ("s = Constant<value = float {0.45}>() y = Sub(image, s) x = Div(y, s)", False),
    "none": ("x = Identity(image)", False),
}


@pytest.mark.parametrize("case", BAKED)
def test_preprocessing_inside_the_graph_is_seen(case: str, save: Callable[..., Path]) -> None:
    head, expected = BAKED[case]
    model = tiny_text(f"{head} f = Flatten(x) scores = Gemm<transB=1>(f, w, b)")
    assert baked_scale(model, "image") is expected
    preprocess = load_onnx_teacher(save(model)).spec.preprocess
    assert preprocess.high == ((255.0,) if expected else (1.0,))
    assert ("found" in preprocess.origin) is expected


@pytest.mark.parametrize("span", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_the_range_is_found_from_batch_norm_statistics(span: tuple[float, float], tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.BatchNorm2d(8, momentum=None), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 4),
    )  # fmt: skip
    low, high = span
    for _ in range(20):
        unit = torch.nn.functional.interpolate(torch.rand(16, 3, 4, 4), (24, 24), mode="bilinear")
        net.train()(unit * (high - low) + low)
    path = tmp_path / "net.onnx"
    torch.onnx.export(
        net.eval(), (torch.rand(2, 3, 24, 24),), path, dynamo=False, do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE, input_names=["x"], dynamic_axes={"x": {0: "n"}},
    )  # fmt: skip
    teacher = load_onnx_teacher(path)
    assert teacher.spec.batch_norms == 1
    assert (teacher.spec.preprocess.low[0], teacher.spec.preprocess.high[0]) == span


def test_declared_ranges_are_never_doubted(tmp_path: Path) -> None:
    path = export(TinyNet(), tmp_path / "net.onnx")
    teacher = load_onnx_teacher(path, TeacherOptions(input_range=(-3.0, 2.0)))
    assert (teacher.spec.preprocess.low, teacher.spec.preprocess.origin) == ((-3.0,), "range")


def test_several_outputs_need_a_choice(save: Callable[..., Path]) -> None:
    model = tiny_text(LINEAR)
    model.graph.output.append(onnx.helper.make_tensor_value_info("f", onnx.TensorProto.FLOAT, None))
    with pytest.raises(UsageError, match="2 outputs"):
        black_box(save(model))
    assert black_box(save(model), output_name="scores").spec.num_classes == 3
