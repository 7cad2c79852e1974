"""Heads, inputs, costs, half precision and small edits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.export import student_to_onnx
from edgedafl.graph.cost import count_macs
from edgedafl.graph.edit import fix_batch
from edgedafl.graph.facts import ImageInput
from edgedafl.graph.half import to_half
from edgedafl.graph.head import batch_norm_taps, find_head
from edgedafl.graph.image_input import find_image_input
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.students import build_student, module_macs
from tests.conftest import LINEAR, tiny_text


@pytest.mark.parametrize(
    ("tail", "kind", "logits"),
    [
        ("scores = Gemm<transB=1>(f, w, b)", "logits", "scores"),
        ("l = Gemm<transB=1>(f, w, b) scores = Softmax(l)", "probabilities", "l"),
        ("l = Gemm<transB=1>(f, w, b) r = LogSoftmax(l) scores = Identity(r)", "log-probabilities", "l"),
        ("l = Gemm<transB=1>(f, w, b) s = Softmax(l) scores = Identity(s)", "probabilities", "l"),
    ],
)
def test_logits_are_found_behind_the_last_softmax(tail: str, kind: str, logits: str) -> None:
    head = find_head(tiny_text(f"f = Flatten(image) {tail}"), "scores")
    assert (head.kind, head.logits, head.features) == (kind, logits, "f")


def test_a_label_output_still_leads_to_logits() -> None:
    model = tiny_text(
        "f = Flatten(image) l = Gemm<transB=1>(f, w, b) scores = ArgMax<axis=1>(l)", outputs="int64[N,1] scores"
    )
    head = find_head(model, "scores")
    assert (head.kind, head.logits) == ("labels", "l")


def test_batch_norm_layers_with_statistics_are_listed() -> None:
    module = build_student("resnet8", (3, 32, 32), 10).module
    folded = student_to_onnx(module, (3, 32, 32))
    assert batch_norm_taps(folded) == []
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[N,2,4,4] x) => (float[N,2,4,4] y) '
        "<float[2] s = {1, 1}, float[2] m = {0, 1}, float[2] v = {1, 2}> { y = BatchNormalization(x, s, m, m, v) }"
    )
    assert [(tap.input, tap.mean, tap.var) for tap in batch_norm_taps(model)] == [("x", "m", "v")]


@pytest.mark.parametrize(
    ("declared", "shape", "layout", "batch"),
    [
        ("float[N,1,16,16] image", (1, 16, 16), "NCHW", None),
        ("float[1,3,20,30] image", (3, 20, 30), "NCHW", 1),
        ("float[N,20,30,3] image", (3, 20, 30), "NHWC", None),
        ("uint8[8,16,16,1] image", (1, 16, 16), "NHWC", 8),
        ("float[N,784] image", (1, 28, 28), "NCHW", None),
    ],
)
def test_image_input_forms(declared: str, shape: tuple[int, ...], layout: str, batch: int | None) -> None:
    image = find_image_input(tiny_text(LINEAR, inputs=declared))
    assert (image.image_shape, image.layout, image.batch) == (shape, layout, batch)


@pytest.mark.parametrize(
    ("declared", "error", "word"),
    [
        ("int64[N,12] tokens", UnsupportedModelError, "INT64"),
        ("float[N] image", UnsupportedModelError, "shape"),
        ("float[N,3,H,W] image", UsageError, "--input-shape"),
        ("float[N,783] image", UsageError, "--input-shape"),
        ("float[N,1,16,16] image, float[N,4] extra", UnsupportedModelError, "2 inputs"),
    ],
)
def test_other_inputs_are_refused(declared: str, error: type[Exception], word: str) -> None:
    with pytest.raises(error) as caught:
        find_image_input(tiny_text(LINEAR, inputs=declared))
    assert word in f"{caught.value.message} {caught.value.hint}"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "shape"), [("lenet5", (1, 32, 32)), ("resnet8:0.5", (3, 40, 24)), ("mobilenetv2:0.25", (3, 32, 32))]
)
def test_macs_of_the_graph_equal_macs_of_the_module(name: str, shape: tuple[int, int, int]) -> None:
    module = build_student(name, shape, 7).module
    model = student_to_onnx(module, shape)
    assert count_macs(model, find_image_input(model)) == module_macs(module, shape)


@pytest.mark.parametrize("batch", ["n", "1", "8"])
def test_products_count_every_token_and_one_image(batch: str) -> None:
    """A Gemm on rows of tokens, (batch * 16, 12), as simplifiers make of a layer of a transformer."""
    rows = -1 if batch == "n" else 16 * int(batch)
    text = f"""<ir_version: 8, opset_import: ["": 18]>
        tokens (float[{batch},12,4,4] x) => (float[{batch},5] y) <int64[2] flat = {{{rows}, 12}}, int64[3] back = {{-1, 16, 7}}> {{
        moved = Transpose<perm = [0, 2, 3, 1]>(x)
        lines = Reshape(moved, flat)
        wide = Gemm(lines, w)
        apart = Reshape(wide, back)
        mean = ReduceMean<keepdims = 0>(apart, axis)
        y = Gemm(mean, v)
    }}"""
    model = onnx.parser.parse_model(text)
    for name, value in {"w": np.zeros((12, 7), np.float32), "v": np.zeros((7, 5), np.float32)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], np.int64), "axis"))
    count = None if batch == "n" else int(batch)
    image = ImageInput("x", (count, 12, 4, 4), "FLOAT", "NCHW", (12, 4, 4), count)
    assert count_macs(model, image) == 16 * 12 * 7 + 7 * 5


def test_lenet5_has_the_papers_size() -> None:
    student = build_student("lenet5", (1, 32, 32), 10)
    assert student.spec.parameters == 61_706
    assert student.spec.macs == 416_520
    assert build_student("lenet5-half", (1, 32, 32), 10).spec.parameters == 15_738


def test_half_precision_keeps_answers_and_interface() -> None:
    model = fix_batch(student_to_onnx(build_student("resnet8:0.5", (3, 32, 32), 10).module, (3, 32, 32)), 1)
    half = to_half(model)
    onnx.checker.check_model(half, full_check=True)
    assert half.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    x = np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype(np.float32)
    a, b = (run_batched(open_session(m), x, batch=1) for m in (model, half))
    assert np.abs(a - b).max() <= 5e-3 * np.abs(a).max()
    assert len(half.SerializeToString()) < 0.6 * len(model.SerializeToString())


def test_global_pooling_is_written_so_that_integer_runtimes_fuse_it() -> None:
    model = student_to_onnx(build_student("resnet8:0.5", (3, 32, 32), 10).module, (3, 32, 32))
    operators = {node.op_type for node in model.graph.node}
    assert "GlobalAveragePool" in operators
    assert "ReduceMean" not in operators
    assert model.ir_version == 8
    assert b"/edgedafl/" not in model.SerializeToString()
