"""Eleven networks, exported four ways and again as float16 and quantized: all are imported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.teachers import imported_forms
from benchmarks.zoo import NETS, build, export
from edgedafl.export import student_to_onnx
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.load import load_onnx
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.stages import pruner_of
from edgedafl.teachers import TeacherOptions, load_onnx_teacher
from tests.copies import META, copies

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", NETS)
def test_every_form_of_a_network_is_imported(name: str, tmp_path: Path) -> None:
    rows = imported_forms(name, tmp_path)
    assert len(rows) == 8
    assert not [row for row in rows if not row["passed"]]
    files = sorted(tmp_path.rglob("*.onnx"))
    assert len(files) >= 6
    for file in files:
        assert not _moved(file), file.name


def _moved(file: Path) -> list[str]:
    """What a network that has run on the host moves there and back when it runs on a device."""
    model = load_onnx(file).model
    module = OnnxModule(model).eval()
    sides = [side.dim_value or 2 for side in model.graph.input[0].type.tensor_type.shape.dim]
    with torch.no_grad():
        module(torch.zeros(sides))
        module.to(META)
        return copies(lambda: module(torch.zeros(sides, device=META)))


@pytest.mark.parametrize("name", NETS)
def test_a_student_is_cut_out_of_every_make(name: str, tmp_path: Path) -> None:
    module, shape = build(name)
    path = export(module, shape, "script, BatchNorm kept", tmp_path / "net.onnx")
    student = pruner_of(load_onnx_teacher(path, TeacherOptions(input_range=(0.0, 1.0)))).student("pruned:0.5")
    exported = student_to_onnx(student.module, shape)
    images = np.random.default_rng(0).random((5, *shape), np.float32)
    assert run_batched(open_session(exported), images).shape == (5, 10)
    # Of transformers the widths of the perceptrons are cut, not the stream.
    assert student.spec.parameters < 0.85 * sum(p.numel() for p in module.parameters())
