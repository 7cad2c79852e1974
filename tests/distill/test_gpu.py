"""What changes on a GPU: the same tests run on the CPU, in both precisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgedafl.distill import METHODS, Budget, Distiller, World, settings_of
from edgedafl.distill.compute import Compute
from edgedafl.students import build_student
from edgedafl.teachers import TeacherOptions, load_onnx_teacher

GPU = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")],
)
SMALL: dict[str, dict[str, object]] = {
    "adversarial": {"channels": 8, "batch": 32, "priors": 32, "prior_trial": 20},
    "fast": {"channels": 8, "batch": 32, "latent": 16, "priors": 16, "prior_trial": 20},
    "inversion": {"batch": 16, "iterations": 6, "per_step": 2},
    "dafl": {"channels": 8, "batch": 32},
    "dfad": {"channels": 8, "batch": 32},
}


def distiller(path: Path, method: str, device: str, compute: Compute, checkpoint: Path | None = None) -> Distiller:
    teacher = load_onnx_teacher(path, TeacherOptions(input_range=(0.0, 1.0)))
    torch.manual_seed(0)
    student = build_student("lenet5", (1, 16, 16), 3)
    _, default = settings_of(method, teacher)
    recipe = replace(default.recipe, student_steps=3, student_batch=16, begin=min(default.recipe.begin, 16))
    settings = replace(default, recipe=replace(recipe, pool=min(recipe.pool, 4000)), **SMALL[method])
    where = torch.device(device)
    synthesizer = METHODS[method].build(teacher, settings=settings, device=where)
    return Distiller(
        teacher, student, synthesizer, budget=Budget(steps=8), world=World(device=where), compute=compute,
        checkpoint=checkpoint,
    )  # fmt: skip


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("low_precision", [False, True])
@pytest.mark.parametrize("method", SMALL)
def test_every_method_runs_in_either_precision(method: str, low_precision: bool, device: str, bn_onnx: Path) -> None:
    outcome = distiller(bn_onnx, method, device, Compute(device, low_precision)).run()
    assert outcome.steps == 8
    weights = outcome.student.state_dict().values()
    assert all(w.dtype == torch.float32 and w.device.type == device for w in weights if w.is_floating_point())
    assert all(bool(torch.isfinite(w).all()) for w in weights)
    assert outcome.pool.pixels().dtype == torch.uint8
    assert outcome.pool.pixels().device.type == device


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_a_checkpoint_goes_from_the_gpu_to_the_cpu(device: str, bn_onnx: Path, tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    distiller(bn_onnx, "adversarial", device, Compute.of(device), file).run()
    run = distiller(bn_onnx, "adversarial", "cpu", Compute.of("cpu"), file)
    run.budget = Budget(steps=10)
    outcome = run.run(resume=True)
    assert outcome.steps == 10
    assert all(bool(torch.isfinite(w).all()) for w in outcome.student.state_dict().values())


def test_only_gpus_use_low_precision_by_default() -> None:
    assert not Compute.of("cpu").low_precision
    assert not Compute.of("cpu").compiled
