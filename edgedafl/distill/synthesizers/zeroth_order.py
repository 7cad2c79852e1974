"""Gradients of a teacher that only answers, estimated from its answers (DFME, MAZE).

The estimate needs m more answers per image and its direction is off by an angle whose cosine is
about sqrt(m / (m + d)) for d pixels, so it pays only for teachers that are cheap to ask. It is
offered for those; the default for black boxes spends no query on gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgedafl.teachers.base import Teacher, TeacherOutput

__all__ = ["ZerothOrderTeacher", "estimated_gradient"]


def estimated_gradient(
    teacher: Teacher, images: Tensor, upstream: Tensor, *, directions: int, step: float, logits: Tensor
) -> Tensor:
    """Estimate J^T upstream by forward differences along random unit directions.

    g = d/m * sum_i [(f(x + eps u_i) - f(x)) . upstream / eps] u_i, with u_i uniform on the sphere.

    Args:
        teacher: Asked for `directions` answers per image.
        images: (N,C,H,W) in model space.
        upstream: Gradient with respect to the logits, (N, K).
        directions: m.
        step: eps, in model space.
        logits: The teacher's answers to `images`, (N, K).

    Examples:
        >>> from edgedafl.teachers import load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx")
        >>> images = torch.zeros(2, *teacher.spec.input_shape)
        >>> logits = teacher.scores(images)
        >>> upstream = torch.ones_like(logits)
        >>> estimated_gradient(teacher, images, upstream, directions=2, step=0.1, logits=logits).shape
        torch.Size([2, 1, 32, 32])
    """
    size = images[0].numel()
    total = torch.zeros_like(images)
    for _ in range(directions):
        noise = torch.randn_like(images)
        unit = noise / noise.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        change = ((teacher.scores(images + step * unit) - logits) * upstream).sum(1) / step
        total += change.reshape(-1, 1, 1, 1) * unit
    return total * (size / directions)


class _Estimate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, teacher: Teacher, directions: int, step: float) -> Tensor:
        logits = teacher.scores(images)
        ctx.save_for_backward(images, logits)
        ctx.teacher, ctx.directions, ctx.step = teacher, directions, step
        return logits

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        images, logits = ctx.saved_tensors
        gradient = estimated_gradient(
            ctx.teacher, images, upstream[0], directions=ctx.directions, step=ctx.step, logits=logits
        )
        return gradient, None, None, None


class ZerothOrderTeacher(Teacher):
    """A teacher of scores that passes for one with gradients; every estimate is paid in queries.

    Args:
        inner: The teacher that is asked.
        directions: Answers per image and gradient.
        step: Length of the differences, in model space. Answers of teachers that round images to
            pixels need steps of several pixels' worth.
    """

    def __init__(self, inner: Teacher, *, directions: int = 1, step: float | None = None) -> None:
        super().__init__(inner.spec, max_queries=inner.max_queries)
        self._inner = inner
        self._directions = directions
        # A unit direction moves each of d pixels by about eps / sqrt(d): aim at four grey levels.
        span = inner.spec.preprocess.high[0] - inner.spec.preprocess.low[0]
        pixels = inner.spec.input_shape[0] * inner.spec.input_shape[1] * inner.spec.input_shape[2]
        self._step = 4 / 255 * span * pixels**0.5 if step is None else step

    @property
    def queries(self) -> int:
        """Rows the inner teacher has answered."""
        return self._inner.queries

    @queries.setter
    def queries(self, value: int) -> None:
        if hasattr(self, "_inner"):
            self._inner.queries = value

    @property
    def remaining(self) -> int | None:
        return self._inner.remaining

    def __call__(self, images: Tensor, *, batch_norm: bool = False) -> TeacherOutput:
        return self._answer(images, batch_norm=batch_norm)

    def _answer(self, images: Tensor, *, batch_norm: bool) -> TeacherOutput:
        logits = _Estimate.apply(images, self._inner, self._directions, self._step)  # type: ignore[no-untyped-call]
        return TeacherOutput(logits)

    def scores(self, images: Tensor) -> Tensor:
        return self._inner.scores(images)

    def to(self, device: torch.device | str) -> ZerothOrderTeacher:
        self._inner.to(device)
        return self

    def state_dict(self) -> dict[str, Any]:
        return self._inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._inner.load_state_dict(state)
