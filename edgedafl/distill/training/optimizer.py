"""The student's optimizer as a recipe wants it, and how fast its step is by itself."""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from edgedafl.distill.synthesizers.base import Recipe
from edgedafl.distill.training.compute import Compute
from edgedafl.distill.training.losses import distillation_loss
from edgedafl.tasks import Task, states

__all__ = ["make_optimizer", "reference_throughput", "set_rate"]

_BARE_STEPS = 9
# A rate of few steps will do where a step is slow.
_BARE_SECONDS = 1.0
_SMALLEST_SIZE = 1e-2


def make_optimizer(weights: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """One kernel for all weights where the device has it.

    Args:
        weights: To be trained.
        recipe: Says which optimizer, and whether steps are shares of every weight's own size.

    Examples:
        >>> recipe = Recipe(student_steps=1, student_batch=8, student_rate=1e-2, relative=True)
        >>> optimizer = make_optimizer([nn.Parameter(torch.full((4,), 3.0))], recipe)
        >>> optimizer.param_groups[0]["scale"]
        3.0
    """
    groups: list[dict[str, Any]] = [{"params": weights, "scale": 1.0}]
    if recipe.relative:
        groups = [{"params": [weight], "scale": _size_of(weight)} for weight in weights]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups, recipe.student_rate, momentum=0.9, weight_decay=recipe.weight_decay, fused=weights[0].is_cuda
        )
    return torch.optim.Adam(groups, recipe.student_rate, weight_decay=recipe.weight_decay, fused=weights[0].is_cuda)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of an optimizer of `make_optimizer`, each weight's in its own scale.

    Examples:
        >>> import torch
        >>> optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "scale": 0.5}], 1.0)
        >>> set_rate(optimizer, 0.1)
        >>> optimizer.param_groups[0]["lr"]
        0.05
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def reference_throughput(
    student: nn.Module, images: Tensor, logits: Tensor, recipe: Recipe, task: Task, compute: Compute
) -> float:
    """Images per second of forward, backward and optimizer alone, on a copy of the student.

    What the device can do with this student: the measure for a run's own rate.

    Args:
        student: Not changed.
        images: One batch (N,C,H,W) in model space and in the student's memory format.
        logits: The teacher's, (N,K).
        recipe: How the student learns.
        task: Of the teacher.
        compute: How the device is used.

    Examples:
        >>> recipe = Recipe(student_steps=1, student_batch=8, student_rate=1e-2)
        >>> student = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> images, logits = torch.rand(8, 1, 8, 8), torch.rand(8, 10)
        >>> reference_throughput(student, images, logits, recipe, "single-label", Compute()) > 0
        True
    """
    student = copy.deepcopy(student)
    optimizer = make_optimizer(list(student.parameters()), recipe)
    times: list[float] = []
    while len(times) < _BARE_STEPS and sum(times) < _BARE_SECONDS:
        started = time.perf_counter()
        with compute.autocast():
            guess = student(images)
        optimizer.zero_grad(set_to_none=True)
        distillation_loss(states(guess.float(), task), states(logits, task)).backward()
        optimizer.step()
        if images.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return len(images) / statistics.median(times)


def _size_of(weight: Tensor) -> float:
    """Root mean square of a tensor, of which a step takes a share; biases of zero may move too."""
    return max(_SMALLEST_SIZE, float(weight.detach().square().mean().sqrt()))
