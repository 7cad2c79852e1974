"""Damaged, partial and hostile files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.graph.load import load_onnx
from tests.conftest import LINEAR, tiny_text


def external(tmp_path: Path, location: str = "weights.bin") -> Path:
    """A model whose weight `w` lies in a file of its own."""
    model = tiny_text(LINEAR)
    weight = model.graph.initializer[0]
    (tmp_path / "weights.bin").write_bytes(weight.raw_data)
    onnx.external_data_helper.set_external_data(weight, location, 0, len(weight.raw_data))
    weight.ClearField("raw_data")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        load_onnx(tmp_path / "no.onnx")


def test_a_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        load_onnx(tmp_path)


@pytest.mark.parametrize(
    ("blob", "word"),
    [
        (b"", "empty"),
        (b"PK\x03\x04 not a model", "not a readable|no ONNX graph"),
        (b"hello world, no model", "not a readable|no ONNX graph"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, blob: bytes, word: str) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(blob)
    with pytest.raises(UnsupportedModelError, match=word):
        load_onnx(path)


def test_truncation_at_every_tenth_is_refused(tmp_path: Path) -> None:
    blob = tiny_text(LINEAR).SerializeToString()
    path = tmp_path / "cut.onnx"
    for tenth in range(1, 10):
        path.write_bytes(blob[: len(blob) * tenth // 10])
        with pytest.raises(UnsupportedModelError):
            load_onnx(path)


def test_external_data_beside_the_model_is_read(tmp_path: Path) -> None:
    file = load_onnx(external(tmp_path))
    assert onnx.numpy_helper.to_array(file.model.graph.initializer[0]).shape == (3, 256)
    assert file.size > 3 * 256 * 4


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin", "C:\\secret", ""])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(UnsupportedModelError, match="outside the model's folder"):
        load_onnx(external(tmp_path, location))


def stray_tensor() -> onnx.TensorProto:
    tensor = onnx.TensorProto(name="stray", data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    return tensor


def in_an_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.add(name="x", type=onnx.AttributeProto.TENSOR).t.CopyFrom(stray_tensor())


def in_a_list_of_an_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.add(name="x", type=onnx.AttributeProto.TENSORS).tensors.append(stray_tensor())


def in_a_graph_of_a_list(model: onnx.ModelProto) -> None:
    graphs = model.graph.node[0].attribute.add(name="x", type=onnx.AttributeProto.GRAPHS).graphs
    graphs.add(name="g").initializer.append(stray_tensor())


def in_a_sparse_weight(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(stray_tensor())


def in_a_function(model: onnx.ModelProto) -> None:
    node = model.functions.add(name="f", domain="d").node.add(op_type="Constant")
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(stray_tensor())


@pytest.mark.parametrize(
    "hide", [in_an_attribute, in_a_list_of_an_attribute, in_a_graph_of_a_list, in_a_sparse_weight, in_a_function]
)
def test_external_data_outside_the_folder_is_found_wherever_it_hides(
    save: Callable[..., Path], hide: Callable[[onnx.ModelProto], None]
) -> None:
    model = tiny_text(LINEAR)
    hide(model)
    with pytest.raises(UnsupportedModelError, match=r"'stray'.* outside the model's folder"):
        load_onnx(save(model))


@pytest.mark.parametrize(("key", "value"), [("offset", "-8"), ("length", "many")])
def test_external_data_at_an_impossible_place_is_refused(tmp_path: Path, key: str, value: str) -> None:
    path = external(tmp_path)
    model = onnx.load(path, load_external_data=False)
    entry = next(e for e in model.graph.initializer[0].external_data if e.key == key)
    entry.value = value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedModelError, match="damaged"):
        load_onnx(path)


def test_external_data_behind_a_link_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = external(folder)
    (tmp_path / "secret").write_bytes(b"0" * 5000)
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsupportedModelError, match="outside"):
        load_onnx(path)


def test_missing_and_short_external_data_are_refused(tmp_path: Path) -> None:
    path = external(tmp_path)
    data = tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(UnsupportedModelError, match="has 100 bytes; the model needs 3072"):
        load_onnx(path)
    data.unlink()
    with pytest.raises(UnsupportedModelError, match="not beside it"):
        load_onnx(path)


@pytest.mark.parametrize("field", ["name", "op_type"])
def test_names_that_are_no_text_are_refused(tmp_path: Path, field: str) -> None:
    model = tiny_text(LINEAR)
    setattr(model.graph.node[0], field, "QQQQQQQQ")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString().replace(b"QQQQQQQQ", b"QQQ\xff\xfeQQQ"))
    with pytest.raises(UnsupportedModelError, match="not text"):
        load_onnx(path)


def test_a_weight_with_too_few_bytes_is_refused(save: Callable[..., Path]) -> None:
    model = tiny_text(LINEAR)
    model.graph.initializer[0].raw_data = np.zeros(10, np.float32).tobytes()
    with pytest.raises(UnsupportedModelError, match="'w'"):
        load_onnx(save(model))


def test_a_dangling_name_is_refused(save: Callable[..., Path]) -> None:
    model = tiny_text(LINEAR)
    model.graph.node[1].input[0] = "nowhere"
    with pytest.raises(UnsupportedModelError, match="'nowhere'"):
        load_onnx(save(model))
