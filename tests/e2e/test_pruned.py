"""The default student, cut out of teachers of several makes, through the whole pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgedafl.graph.runtime import open_session, run_batched
from tests.conftest import edgedafl, export
from tests.graph.test_pruning import nhwc

STEPS = ["--min-fidelity", "0", "--steps", "4", "--quick", "--threads", "1", "--input-range", "0,1", "--device", "none"]


class Padded(nn.Module):
    """BatchNorms and a shortcut that pads channels, as in the CIFAR networks of He et al. (2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv, self.norm2 = nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)) + self.norm2(self.conv(x)))
        return self.fc(x.mean((2, 3)))


def teacher(name: str, folder: Path) -> Path:
    path = folder / f"{name}.onnx"
    if name == "half precision, channels last":
        model = nhwc()
        # Classes that vary: the random network answers one class to nearly everything.
        weight = next(t for t in model.graph.initializer if t.name == "u")
        array = onnx.numpy_helper.to_array(weight).astype(np.float32) * 8
        weight.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float16), "u"))
        path.write_bytes(model.SerializeToString())
        return path
    torch.manual_seed(5)
    module = Padded()
    module.train()
    for _ in range(20):
        module(torch.rand(64, 3, 16, 16))
    with torch.no_grad():
        module.fc.weight.mul_(20)
    return export(module, path, (3, 16, 16), fold=name == "folded")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["rpi5", "jetson"])
@pytest.mark.parametrize("name", ["folded", "BatchNorms kept", "half precision, channels last"])
def test_the_default_student_goes_all_the_way(name: str, target: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = edgedafl("compress", teacher(name, tmp_path), "--target", target, "-o", run, *STEPS)
    assert done.code == 0, done.err
    manifest = json.loads((run / "run.json").read_text())
    student, whole = manifest["student"], manifest["teacher"]
    assert student["architecture"] == "pruned"
    assert student["parameters"] <= 0.7 * whole["parameters"]
    assert manifest["stages"]["verify"]["result"]
    model = onnx.load(run / "student.onnx")
    images = np.random.default_rng(0).random((3, *whole["input_shape"]), np.float32)
    assert run_batched(open_session(model), images).shape == (3, 4)
    assert model.opset_import[0].version == 18


@pytest.mark.slow
def test_a_run_with_the_default_student_resumes(tmp_path: Path) -> None:
    source = teacher("folded", tmp_path)
    short = ["distill", source, "-o", tmp_path / "run", "--threads", "1", "--input-range", "0,1", "--steps", "3"]
    assert edgedafl(*short).code == 0
    again = edgedafl(*short, "--resume")
    assert not (tmp_path / "run" / "checkpoint").exists()  # only an unfinished run needs it
    assert again.code == 0, again.err  # nothing is left to do: the same student was found
    assert edgedafl("quantize", tmp_path / "run").code == 0
