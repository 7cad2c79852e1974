"""DeepInversion (Yin et al., CVPR 2020): pixels themselves are trained, no generator.

Slow, and the images are the clearest of all. A batch takes hundreds of iterations, spread over
synthesizer steps; the student learns from the finished batches meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgedafl.distill.synthesizers.base import Batch, Recipe, Synthesizer, detached, evaluating, random_classes
from edgedafl.distill.training.losses import batch_norm_loss, jensen_shannon, one_hot_loss, total_variation
from edgedafl.tasks import states
from edgedafl.teachers.base import Teacher

__all__ = ["InversionSettings", "InversionSynthesizer"]

_TEMPERATURE = 3.0  # of the competition with the student, as published


@dataclass(frozen=True)
class InversionSettings:
    """The published values for CIFAR-10.

    Attributes:
        iterations: Per batch of images.
        per_step: Iterations per synthesizer step.
        batch: Images.
        learning_rate: Of Adam on the pixels, in model space.
        batch_norm: Weight of the BatchNorm statistics.
        one_hot: Weight of the cross-entropy with the classes drawn for the batch.
        variation: Weight of the total variation.
        compete: Weight of the Jensen-Shannon term: images on which the student differs.
        jitter: Most pixels by which the images are rolled before each look.
        recipe: How the student learns.
    """

    iterations: int = 2000
    per_step: int = 20
    batch: int = 256
    learning_rate: float = 0.1
    batch_norm: float = 10.0
    one_hot: float = 1.0
    variation: float = 1e-3
    compete: float = 1.0
    jitter: int = 2
    recipe: Recipe = Recipe(
        student_steps=20,
        student_batch=128,
        student_rate=0.1,
        optimizer="sgd",
        weight_decay=1e-4,
        begin=256,
        temperature=20.0,
        augment=True,
    )


class InversionSynthesizer(Synthesizer):
    """One batch of pixels at a time."""

    def __init__(
        self,
        teacher: Teacher,
        *,
        settings: InversionSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings = settings or InversionSettings()
        self.recipe = self.settings.recipe
        self._spec = teacher.spec
        self._device = device
        self._rate = self.settings.learning_rate
        self._finished = torch.zeros(0, *teacher.spec.input_shape, device=device)
        self._begin()

    def _begin(self) -> None:
        """A batch of noise, and the classes it should become."""
        s, spec = self.settings, self._spec
        noise = torch.randn(s.batch, *spec.input_shape, device=self._device)
        unit = (0.5 + 0.25 * noise).clamp(0, 1)
        self._pixels = spec.preprocess.to_model(unit).requires_grad_()
        self._classes = random_classes(spec, s.batch, self._device)
        self._optimizer = torch.optim.Adam([self._pixels], lr=self._rate, betas=(0.5, 0.9))
        self._done = 0

    def step(self, teacher: Teacher, student: nn.Module, fraction: float) -> Batch:
        """Some iterations; the batch when it is finished, else nothing."""
        s = self.settings
        losses: dict[str, Tensor] = {}
        for _ in range(min(s.per_step, s.iterations - self._done)):
            losses = self._iterate(teacher, student)
            self._done += 1
        if self._done < s.iterations:
            return Batch.nothing(self._spec, self._device, detached(losses))
        self._finished = self._pixels.detach().clone()
        self._begin()
        return Batch(self._finished, teacher.scores(self._finished), detached(losses))

    def _iterate(self, teacher: Teacher, student: nn.Module) -> dict[str, Tensor]:
        s, task = self.settings, self._spec.task
        down, right = (int(torch.randint(-s.jitter, s.jitter + 1, ())) for _ in range(2))
        rolled = torch.roll(self._pixels, (down, right), (2, 3))
        answer = teacher(rolled, batch_norm=True)
        logits = states(answer.logits, task)
        losses = {
            "batch_norm": batch_norm_loss(answer.batch_norm),
            "one_hot": one_hot_loss(logits, self._classes),
            "variation": total_variation(rolled),
        }
        total = s.batch_norm * losses["batch_norm"] + s.one_hot * losses["one_hot"] + s.variation * losses["variation"]
        if s.compete:
            with evaluating(student):
                guess = states(student(rolled).float(), task)
            losses["compete"] = 1 - jensen_shannon(guess, logits, _TEMPERATURE).clamp(0, 1)
            total = total + s.compete * losses["compete"]
        self._optimizer.zero_grad(set_to_none=True)
        total.backward(inputs=[self._pixels])
        self._optimizer.step()
        with torch.no_grad():
            low, high = self._spec.preprocess.bounds(self._pixels)
            self._pixels.copy_(torch.minimum(torch.maximum(self._pixels, low), high))
        return losses

    def sample(self, count: int) -> Tensor:
        """Images of the newest finished batch, else of the unfinished one; repeated where it is small."""
        source = self._finished if len(self._finished) else self._pixels.detach()
        return source[torch.randint(len(source), (count,), device=source.device)]

    def restart(self) -> None:
        self._rate *= 0.3
        self._begin()

    def state_dict(self) -> dict[str, Any]:
        return {
            "pixels": self._pixels.detach(),
            "classes": self._classes,
            "finished": self._finished,
            "optimizer": self._optimizer.state_dict(),
            "done": self._done,
            "rate": self._rate,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rate = float(state["rate"])
        self._begin()
        with torch.no_grad():
            self._pixels.copy_(state["pixels"])
        self._classes = state["classes"].to(self._device)
        self._finished = state["finished"].to(self._device)
        self._optimizer.load_state_dict(state["optimizer"])
        self._done = int(state["done"])
