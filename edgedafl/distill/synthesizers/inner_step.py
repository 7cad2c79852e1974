"""One of the steps by which a copy of the common generator is fitted to one batch (Fast-DFKD)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgedafl.distill.synthesizers.base import evaluating
from edgedafl.distill.training.augment import Augmentation
from edgedafl.distill.training.cuda_graph import CudaGraphStep
from edgedafl.distill.training.losses import moments_loss, moments_of, one_hot_loss, shared_disagreement
from edgedafl.tasks import states
from edgedafl.teachers.base import Teacher

__all__ = ["Fitted", "InnerStep", "Weights"]


@dataclass(frozen=True)
class Weights:
    """Of the terms of the loss.

    Attributes:
        batch_norm: BatchNorm statistics.
        momentum: Share of the statistics of earlier batches in them.
        one_hot: Cross-entropy with the classes drawn for the batch.
        adversarial: The student's difference where it agrees on the class; 0 does not ask it.
    """

    batch_norm: float
    momentum: float
    one_hot: float
    adversarial: float


@dataclass(frozen=True)
class Fitted:
    """What one step has found; valid until the next one.

    Attributes:
        images: Of the codes, before the step (N,C,H,W).
        total: The loss, a scalar.
        moments: The BatchNorm statistics by which it was judged.
        codes: Gradient of the codes (N, latent).
        losses: The terms by name, without their weights.
    """

    images: Tensor
    total: Tensor
    moments: Tensor
    codes: Tensor
    losses: dict[str, Tensor]


class InnerStep:
    """Leaves gradients in the copy of a generator.

    On a GPU the step is recorded (`recorded`): hosts take longer to launch its kernels than it takes to run
    them. A step serves as long as teacher, student, weights and augmentation stay the same.

    Args:
        generator: The common one.
        teacher: Asked about varied images, with its BatchNorm statistics.
        student: Asked where the weights say so; it may learn in between.
        weights: Of the terms.
        augmentation: Varies the images.
        records: Whether the step may be recorded.
    """

    def __init__(
        self,
        generator: nn.Module,
        teacher: Teacher,
        student: nn.Module,
        weights: Weights,
        augmentation: Augmentation,
        *,
        records: bool,
    ) -> None:
        self.generator = copy.deepcopy(generator)
        self._teacher, self._student, self._weights, self._augmentation = teacher, student, weights, augmentation
        self._step: Callable[..., tuple[Tensor, ...]] = self._gradients
        if records:
            self._step = CudaGraphStep(self._gradients, self.generator)

    @torch.no_grad()
    def begin(self, generator: nn.Module) -> None:
        """Go on from the common generator as it is now."""
        common = generator.state_dict()
        for name, mine in self.generator.state_dict().items():
            mine.copy_(common[name])

    def __call__(self, codes: Tensor, classes: Tensor, earlier: Tensor | None) -> Fitted:
        """Gradients of the generator's copy and of the codes.

        Args:
            codes: (N, latent).
            classes: Drawn for the batch, see `random_classes`.
            earlier: Moments of the batches before; None for the first one, which is never recorded.
        """
        before = self._teacher.queries
        step = self._gradients if earlier is None else self._step
        found = step(codes, classes) if earlier is None else step(codes, classes, earlier)
        self._teacher.queries = before + len(codes)  # a recorded step does not count
        images, total, moments, gradient, *terms = found
        return Fitted(images, total, moments, gradient, dict(zip(self._names, terms, strict=True)))

    @property
    def _names(self) -> list[str]:
        return ["batch_norm", "one_hot", *(["adversarial"] if self._weights.adversarial else [])]

    def _gradients(self, codes: Tensor, classes: Tensor, earlier: Tensor | None = None) -> tuple[Tensor, ...]:
        codes = codes.detach().requires_grad_()
        images = self.generator(codes)
        losses, moments = self._losses(images, classes, earlier)
        total = sum((getattr(self._weights, name) * loss for name, loss in losses.items()), images.new_zeros(()))
        self.generator.zero_grad(set_to_none=True)
        total.backward(inputs=[*self.generator.parameters(), codes])
        assert codes.grad is not None
        terms = [losses[name].detach() for name in self._names]
        return images.detach(), total.detach(), moments.detach(), codes.grad, *terms

    def _losses(self, images: Tensor, classes: Tensor, earlier: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        task, momentum = self._teacher.spec.task, self._weights.momentum
        varied = self._augmentation(images)
        answer = self._teacher(varied, batch_norm=True)
        logits = states(answer.logits.float(), task)
        moments = moments_of(answer.batch_norm)
        if earlier is not None:  # one batch need not show all of the data by itself
            moments = (1 - momentum) * moments + momentum * earlier
        losses = {
            "batch_norm": moments_loss(moments, answer.batch_norm),
            "one_hot": one_hot_loss(logits, classes),
        }
        if self._weights.adversarial:
            with evaluating(self._student):
                guess = states(self._student(varied).float(), task)
            losses["adversarial"] = -shared_disagreement(guess, logits)
        return losses, moments
