"""Fixtures: the smallest models that show a case."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgedafl.distill.synthesizers.priors import noise_fields
from edgedafl.teachers import TeacherOptions, load_onnx_teacher

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "mnist"
NOTHING: Mapping[str, str] = {}


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _interrupts() -> None:
    # Shells start background jobs with interrupts ignored, and their children inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def tiny_text(body: str, inputs: str = "float[N,1,16,16] image", outputs: str = "float[N,3] scores") -> onnx.ModelProto:
    """A model from ONNX text; weights w (3,256) and b (3) are given."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> g ({inputs}) => ({outputs}) {{ {body} }}')
    random = np.random.default_rng(0)
    weight = random.normal(size=(3, 256)).astype(np.float32) / 16
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0.1, 0, -0.1], np.float32), "b"))
    return model


LINEAR = "f = Flatten<axis=1>(image) scores = Gemm<transB=1>(f, w, b)"


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write a model into the test's folder."""

    def write(model: onnx.ModelProto, name: str = "model.onnx") -> Path:
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return path

    return write


class TinyNet(nn.Module):
    """Two convolutions and a linear layer: big enough to distill, small enough for a second."""

    def __init__(self, channels: int = 1, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.fc = nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x))


def export(
    module: nn.Module, path: Path, shape: tuple[int, ...] = (1, 16, 16), *, fixed: int | None = None, fold: bool = True
) -> Path:
    """Export a module to ONNX with a free or a fixed batch, BatchNorms folded or kept."""
    import logging
    import warnings

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    dynamic = None if fixed else ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (torch.zeros(fixed or 2, *shape),),
            path,
            input_names=["image"],
            output_names=["scores"],
            dynamic_shapes=dynamic,
            external_data=False,
            optimize=fold,
            verbose=False,
        )
    return path


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that a student can learn within a second."""
    torch.manual_seed(3)
    module = TinyNet()
    with torch.no_grad():
        module.fc.weight.mul_(6)
    return export(module, tmp_path_factory.mktemp("tiny") / "tiny.onnx")


@pytest.fixture(scope="session")
def bn_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher whose BatchNorm statistics can be read."""
    torch.manual_seed(3)
    body = (nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8))
    module = nn.Sequential(*body, nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))
    module.train()
    for _ in range(50):
        module(noise_fields(64, (1, 16, 16), torch.Generator().manual_seed(1)))
    with torch.no_grad():
        module[-1].weight.mul_(6)
    return export(module, tmp_path_factory.mktemp("bn") / "bn.onnx", fold=False)


@pytest.fixture
def tiny_teacher(tiny_onnx: Path):
    return load_onnx_teacher(tiny_onnx, TeacherOptions(input_range=(0.0, 1.0)))


class Result:
    """What a command line left."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def edgedafl(
    *arguments: str | Path, cwd: Path | None = None, timeout: float = 300, environment: Mapping[str, str] = NOTHING
) -> Result:
    """Run the real command in a process of its own."""
    command = [sys.executable, "-m", "edgedafl", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", **environment}
    return Result(
        subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=cwd, env=environment, check=False)
    )


def exported_run(path: Path, teacher: Path, target: str) -> Path:
    """A run of five steps with its bundle."""
    made = edgedafl("distill", teacher, "--target", target, "-o", path, "--steps", "5", "--threads", "1")
    assert made.code == 0, made.err
    assert edgedafl("export", path).code == 0
    return path


def assert_clean_failure(result: Result, code: int, *words: str) -> None:
    """One clear sentence and the right exit code, no traceback."""
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    assert result.err.startswith(("Error: ", "Usage: ")) or "\nError: " in result.err, result.err
    for word in words:
        assert word in result.err, result.err
