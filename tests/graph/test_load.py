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
