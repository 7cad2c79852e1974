"""Teachers from ONNX files: what is found, what is refused, and that answers are right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgedafl.errors import EdgeDaflError, UnsupportedModelError, UsageError
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.teachers import QueryBudgetError, TeacherOptions, load_onnx_teacher
from tests.conftest import EXAMPLE, LINEAR, ROOT, TinyNet, export, tiny_text


def test_the_example_teacher_is_understood() -> None:
    spec = load_onnx_teacher(EXAMPLE / "teacher.onnx", TeacherOptions(mean=(0.1307,), std=(0.3081,))).spec
    assert (spec.input_shape, spec.num_classes, spec.output, spec.access) == ((1, 32, 32), 10, "logits", "gradient")
    assert spec.has_features
    assert spec.batch is None
    assert spec.macs == 416_520
    assert spec.preprocess.low[0] == pytest.approx(-0.1307 / 0.3081)


@pytest.mark.parametrize("fixed", [1, 4])
def test_a_fixed_batch_answers_like_a_free_one(tmp_path: Path, fixed: int) -> None:
    module = TinyNet()
    free = load_onnx_teacher(export(module, tmp_path / "free.onnx"))
    teacher = load_onnx_teacher(export(module, tmp_path / "fixed.onnx", fixed=fixed))
    x = torch.rand(6, 1, 16, 16)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.testing.assert_close(teacher(a).logits, free(b).logits)
    teacher(a).logits.sum().backward()
    free(b).logits.sum().backward()
    torch.testing.assert_close(a.grad, b.grad)
    assert teacher.spec.batch == fixed


@pytest.mark.parametrize(
    ("tail", "output"),
    [
        ("scores = Softmax(l)", "probabilities"),
        ("scores = LogSoftmax(l)", "log-probabilities"),
        ("e = Exp(l) ax = Constant<value_ints=[1]>() s = ReduceSum(e, ax) scores = Div(e, s)", "probabilities"),
    ],
)
def test_probabilities_lead_back_to_logits(save: Callable[..., Path], tail: str, output: str) -> None:
    plain = load_onnx_teacher(save(tiny_text(LINEAR), "plain.onnx"))
    text = f"f = Flatten(image) l = Gemm<transB=1>(f, w, b) {tail}"
    teacher = load_onnx_teacher(save(tiny_text(text), "soft.onnx"))
    x = torch.rand(5, 1, 16, 16)
    assert teacher.spec.output == output
    # Logits are known up to a constant per row.
    a, b = (torch.log_softmax(t.scores(x), 1) for t in (plain, teacher))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_channels_last_input(save: Callable[..., Path]) -> None:
    text = "t = Transpose<perm=[0,3,1,2]>(image) f = Flatten(t) scores = Gemm<transB=1>(f, w, b)"
    teacher = load_onnx_teacher(save(tiny_text(text, inputs="float[N,16,16,1] image")))
    plain = load_onnx_teacher(save(tiny_text(LINEAR), "plain.onnx"))
    x = torch.rand(3, 1, 16, 16)
    assert teacher.spec.layout == "NHWC"
    torch.testing.assert_close(teacher.scores(x), plain.scores(x))


def test_uint8_input_passes_a_gradient(save: Callable[..., Path]) -> None:
    text = "c = Cast<to=1>(image) f = Flatten(c) scores = Gemm<transB=1>(f, w, b)"
    teacher = load_onnx_teacher(save(tiny_text(text, inputs="uint8[N,1,16,16] image")))
    x = torch.full((2, 1, 16, 16), 100.0, requires_grad=True)
    teacher(x).logits.sum().backward()
    assert x.grad.abs().max() > 0
    assert teacher.spec.preprocess.high == (255.0,)


def test_flattened_input(save: Callable[..., Path]) -> None:
    text = "scores = Gemm<transB=1>(image, w, b)"
    teacher = load_onnx_teacher(save(tiny_text(text, inputs="float[N,256] image")))
    assert teacher.spec.input_shape == (1, 16, 16)
    assert teacher.scores(torch.rand(4, 1, 16, 16)).shape == (4, 3)


def test_initializers_listed_as_inputs_are_not_inputs(save: Callable[..., Path]) -> None:
    model = tiny_text(LINEAR)
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [3, 256]))
    assert load_onnx_teacher(save(model)).spec.num_classes == 3


def test_the_classifier_among_two_outputs_is_taken(save: Callable[..., Path]) -> None:
    model = tiny_text(
        "f = Flatten(image) scores = Gemm<transB=1>(f, w, b)", outputs="float[N,256] f, float[N,3] scores"
    )
    assert load_onnx_teacher(save(model)).spec.num_classes == 3


TWO_HEADS = "f = Flatten(image) scores = Gemm<transB=1>(f, w, b) other = Gemm<transB=1>(f, w)"


def test_two_classifiers_need_a_choice(save: Callable[..., Path]) -> None:
    path = save(tiny_text(TWO_HEADS, outputs="float[N,3] scores, float[N,3] other"))
    with pytest.raises(UsageError, match="scores, other"):
        load_onnx_teacher(path)
    assert load_onnx_teacher(path, TeacherOptions(output_name="other")).spec.num_classes == 3
    with pytest.raises(UsageError, match="no output 'x'"):
        load_onnx_teacher(path, TeacherOptions(output_name="x"))


REFUSED: dict[str, tuple[onnx.ModelProto, str]] = {
    "unknown operator": (tiny_text("f = NonZero(image) g = Cast<to=1>(f) scores = Gemm<transB=1>(g, w, b)"), "NonZero 'f'"),
    "no image": (tiny_text("scores = Cast<to=1>(image)", inputs="int64[N,3] image"), "INT64"),
    "detection": (tiny_text("scores = Relu(image)", outputs="float[N,1,16,16] scores"), "one row of scores"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_teacher_is_refused_with_a_reason(case: str, save: Callable[..., Path]) -> None:
    model, word = REFUSED[case]
    with pytest.raises(UnsupportedModelError) as caught:
        load_onnx_teacher(save(model))
    assert word in caught.value.message


def test_a_custom_domain_is_named(save: Callable[..., Path]) -> None:
    model = tiny_text(LINEAR)
    model.graph.node[0].domain = "acme.ops"
    model.opset_import.append(onnx.helper.make_opsetid("acme.ops", 1))
    with pytest.raises(UnsupportedModelError, match=r"acme\.ops\.Flatten"):
        load_onnx_teacher(save(model))


def test_a_training_graph_is_refused(save: Callable[..., Path]) -> None:
    model = tiny_text(LINEAR)
    model.training_info.add()
    with pytest.raises(UnsupportedModelError, match="training graph"):
        load_onnx_teacher(save(model))


def test_nan_weights_are_refused(save: Callable[..., Path]) -> None:
    model = tiny_text(LINEAR)
    model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.full(3, np.nan, np.float32), "b"))
    with pytest.raises(EdgeDaflError, match=r"NaN|nan|inf"):
        load_onnx_teacher(save(model))


def test_queries_are_counted_and_the_budget_is_a_hard_stop(tiny_teacher) -> None:
    tiny_teacher.max_queries = 10
    tiny_teacher.scores(torch.rand(7, 1, 16, 16))
    assert tiny_teacher.queries == 7
    with pytest.raises(QueryBudgetError, match="7 rows"):
        tiny_teacher.scores(torch.rand(4, 1, 16, 16))
    assert tiny_teacher.queries == 7


FOREIGN = {
    "fashion_cnn/fashion_mnist": ((1, 28, 28), "log-probabilities", None),
    "cntk_mnist_onnx/mnist": ((1, 28, 28), "logits", 1),
    "nhwc_cifar/cifar10_small": ((3, 32, 32), "logits", None),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files(name: str) -> None:
    path = ROOT.parent / "shared" / "models" / f"{name}.onnx"
    if not path.exists():
        pytest.skip("the third-party models are not on this machine")
    shape, output, batch = FOREIGN[name]
    teacher = load_onnx_teacher(path)
    spec = teacher.spec
    assert (spec.input_shape, spec.output, spec.batch, spec.num_classes) == (shape, output, batch, 10)
    x = torch.rand(5, *shape)
    session = open_session(path)
    feed = x.permute(0, 2, 3, 1) if spec.layout == "NHWC" else x
    expected = run_batched(session, feed.numpy(), batch=batch)
    np.testing.assert_array_equal(teacher.scores(x).argmax(1).numpy(), expected.argmax(1))
    assert teacher.features(x).ndim == 2


def test_scores_without_a_gradient_are_refused(save: Callable[..., Path]) -> None:
    text = "h = Constant<value = float {0.5}>() g = Greater(image, h) c = Cast<to=1>(g) f = Flatten(c) scores = Gemm<transB=1>(f, w, b)"
    with pytest.raises(UnsupportedModelError, match="passes no gradient") as caught:
        load_onnx_teacher(save(tiny_text(text)))
    assert "--access scores" in caught.value.hint


def test_an_arg_max_head_still_gives_logits(save: Callable[..., Path]) -> None:
    text = "f = Flatten(image) l = Gemm<transB=1>(f, w, b) scores = ArgMax<axis=1, keepdims=0>(l)"
    teacher = load_onnx_teacher(save(tiny_text(text, outputs="int64[N] scores")))
    plain = load_onnx_teacher(save(tiny_text(LINEAR), "plain.onnx"))
    x = torch.rand(3, 1, 16, 16)
    assert (teacher.spec.output, teacher.spec.num_classes, teacher.spec.task) == ("labels", 3, "single-label")
    torch.testing.assert_close(teacher.scores(x), plain.scores(x))
