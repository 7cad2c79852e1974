"""Students that are their teacher, fed smaller images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgedafl.api import compress
from edgedafl.config import CompressConfig
from edgedafl.errors import UsageError
from edgedafl.export import student_to_onnx
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.preprocess import middle_share
from edgedafl.stages import StudentBuilder, builder, study_teacher
from edgedafl.stages.study import resized
from edgedafl.targets import find_target
from edgedafl.teachers import TeacherOptions, load_teacher
from tests.conftest import export

SHAPE = (3, 64, 64)


def students(net: nn.Module, folder: Path) -> StudentBuilder:
    torch.manual_seed(0)
    teacher = load_teacher(str(export(net.eval(), folder / "net.onnx", SHAPE)), TeacherOptions(input_range=(0.0, 1.0)))
    return builder(CompressConfig(), teacher, study_teacher(teacher), find_target("x86"))


def test_a_network_that_pools_takes_smaller_images_and_says_so(tmp_path: Path) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    build = students(net, tmp_path)
    whole, small = build("kept:1"), build("kept:1@32")
    assert small.spec.name == "kept:1@32" and small.spec.input_shape == (3, 32, 32)
    assert small.spec.parameters == whole.spec.parameters
    assert small.spec.macs == pytest.approx(whole.spec.macs / 4, rel=0.01)
    model = student_to_onnx(small.module, small.spec.input_shape)
    images = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    scores = run_batched(open_session(model), images)
    with torch.no_grad():
        expected = small.module.eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    for side in ("64", "7", "half"):
        with pytest.raises(UsageError, match="must be a number below 64"):
            build(f"kept:1@{side}")


def test_a_network_of_one_size_is_said_to_be_one(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(8 * 64, 5))
    with pytest.raises(UsageError, match="takes images of 64x64 only"):
        students(net, tmp_path)("kept:1@32")


def test_the_middle_is_shrunk_so_that_things_stay_as_large_as_they_can() -> None:
    """224 to 160 pixels: the middle 189, shrunk by 0.845; a border does not count, the middle keeps its place."""
    assert round(224 * middle_share(160, 224)) == 189
    images = torch.zeros(1, 3, 224, 224)
    images[:, :, :17] = 1.0  # outside of the middle
    images[:, :, 112:] = 0.5
    small = resized(images, (160, 160))
    assert small.shape == (1, 3, 160, 160) and float(small[:, :, :79].max()) == 0.0
    assert float(small[:, :, 81:].min()) == pytest.approx(0.5, abs=1e-3)
    assert resized(images, (224, 224)) is images


def test_the_bundle_and_the_report_say_what_is_cropped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    made = compress(
        export(net.eval(), tmp_path / "net.onnx", SHAPE), target="rpi4", student="kept:1@32", min_fidelity=0,
        input_range=(0.0, 1.0), device="none", output=tmp_path / "run",
    )  # fmt: skip
    manifest = json.loads((made.bundle / "manifest.json").read_text())
    assert manifest["preprocess"]["middle"] == pytest.approx(0.5**0.5, abs=1e-4)
    assert manifest["input"]["shape"] == [1, 3, 32, 32]
    assert "the middle 70.7 % of width and height are shrunk to this size" in (made.bundle / "README.md").read_text()
    assert "takes the middle 70.7 % of each side" in made.report.read_text()
