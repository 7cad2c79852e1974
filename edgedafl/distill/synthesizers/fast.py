"""For teachers whose BatchNorm statistics can be read: a generator that learns how to learn fast.

After Fast-DFKD (Fang et al., AAAI 2022). A common generator is the start for every batch: a copy
of it and the codes themselves are trained a few steps until the batch has the statistics, the
classes and the difficulty asked for; then the common generator moves so that the next batch needs
fewer steps. All images stay in the pool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgedafl.distill.synthesizers.base import (
    LAYERS,
    Batch,
    GeneratorSynthesizer,
    Recipe,
    random_classes,
)
from edgedafl.distill.synthesizers.generators import PublishedGenerator
from edgedafl.distill.synthesizers.inner_step import InnerStep, Weights
from edgedafl.distill.synthesizers.priors import PriorMixture
from edgedafl.distill.synthesizers.procedural_images import ProceduralImages
from edgedafl.teachers.base import Teacher, TeacherSpec

__all__ = ["FastSettings", "FastSynthesizer"]

_BETAS = (0.5, 0.999)
# Reptile's gradient is the way the weights went; Adam normalises it, so the factor only guards
# against rounding (the published value).
_REPTILE = 67.0


@dataclass(frozen=True)
class FastSettings:
    """The published weights for residual networks; schedules are shares of the budget.

    Attributes:
        meta: `fomaml` adds up the gradients along the way, `reptile` takes the way itself.
        inner_steps: Steps per batch.
        learning_rate: Of the copy; the common generator learns `inner_steps` times as fast.
        code_rate: Of the codes.
        batch_norm: Weight of the BatchNorm statistics.
        momentum: Share of the statistics of earlier batches in that loss.
        one_hot: Weight of the cross-entropy with the classes drawn for the batch.
        adversarial: Weight of the student's difference where it agrees on the class.
        warm_up: Share of the budget before the adversarial term begins.
        reset: Share of the budget after which the first layer begins anew, for variety.
        latent: Length of the code.
        channels: Width of the generator; 0 is for the device to say, see `on`.
        batch: Images per step.
        priors: Procedural images per step, beside the generated ones.
        prior_trial: Images per family by which their shares are set.
        recipe: How the student learns; 0 student steps are for the device to say.
    """

    meta: Literal["fomaml", "reptile"] = "fomaml"
    inner_steps: int = 5
    learning_rate: float = 3e-3
    code_rate: float = 1e-2
    batch_norm: float = 10.0
    momentum: float = 0.9
    one_hot: float = 0.5
    adversarial: float = 1.33
    warm_up: float = 0.2
    reset: float = 0.64
    latent: int = 256
    channels: int = 0
    batch: int = 256
    priors: int = 64
    prior_trial: int = 300
    recipe: Recipe = Recipe(
        student_steps=0,
        student_batch=128,
        student_rate=0.1,
        optimizer="sgd",
        weight_decay=1e-4,
        pool=60_000,
        begin=1024,
        begin_at=0.1,
        temperature=20.0,
        layers=LAYERS,
        augment=True,
    )

    def on(self, device: torch.device | str) -> FastSettings:
        """With what suits a device where nothing else is asked for.

        CPUs take half of the published channels: a step would take three times as long. On GPUs a
        student's step is recorded and takes little beside a batch's many steps.
        """
        gpu = torch.device(device).type == "cuda"
        steps = self.recipe.student_steps or (100 if gpu else 40)
        return replace(
            self, channels=self.channels or (128 if gpu else 64), recipe=replace(self.recipe, student_steps=steps)
        )

    def inherited(self) -> FastSettings:
        """The same for a student that begins as its teacher.

        It learns at once, while the generator has little to show: as many procedural images as
        generated ones.
        """
        return replace(self, priors=self.batch)


class FastSynthesizer(GeneratorSynthesizer):
    """One batch per step."""

    def __init__(
        self,
        teacher: Teacher,
        *,
        settings: FastSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        s = self.settings = (settings or FastSettings()).on(device)
        super().__init__(teacher, s.recipe, s.latent, s.learning_rate, device)
        self.companions = ProceduralImages(teacher.spec, s.priors, s.prior_trial, device)
        self._was_reset = False
        self._earlier: Tensor | None = None
        self._inner: tuple[object, InnerStep] | None = None

    def _make(self) -> nn.Module:
        s, spec = self.settings, self._spec
        return PublishedGenerator(
            spec.input_shape, s.latent, s.channels, spec.preprocess, "pixels", doublings=_doublings(spec)
        )

    def _optimizer(self) -> torch.optim.Optimizer:
        rate = self._rate * self.settings.inner_steps
        return torch.optim.Adam(self.generator.parameters(), lr=rate, betas=_BETAS)

    def use_priors(self, priors: PriorMixture) -> None:
        self.companions.use_priors(priors)

    def procedural(self, teacher: Teacher) -> Batch | None:
        return self.companions.alone(teacher, self.settings.priors + self.settings.batch)

    @property
    def _sample_batch(self) -> int:
        return self.settings.batch

    def step(self, teacher: Teacher, student: nn.Module, fraction: float) -> Batch:
        """Make one batch and move the common generator."""
        s = self.settings
        self.companions.tune(teacher)
        if fraction >= s.reset and not self._was_reset:
            self._was_reset = True
            self._reset_first_layer()
        step = self._inner_step(teacher, student, fraction)
        own = step.generator
        codes = self.latents(s.batch)
        classes = random_classes(self._spec, s.batch, self._device)
        inner = torch.optim.Adam(
            [{"params": own.parameters(), "lr": self._rate}, {"params": [codes], "lr": s.code_rate}], betas=_BETAS
        )
        self.optimizer.zero_grad(set_to_none=False)
        keep = _Best()
        for _ in range(s.inner_steps):
            found = step(codes, classes, self._earlier)
            keep.offer(found.images, found.total)
            if s.meta == "fomaml":
                self._add_gradients(own)
            codes.grad = found.codes
            inner.step()
        if s.meta == "reptile":
            self._take_way(own)
        self.world.average_gradients(self.generator.parameters())
        self.optimizer.step()
        self._earlier = found.moments.clone()
        losses = {name: loss.clone() for name, loss in found.losses.items()}
        return self.companions.combine_with(Batch(keep.images, teacher.scores(keep.images), losses), teacher)

    def _inner_step(self, teacher: Teacher, student: nn.Module, fraction: float) -> InnerStep:
        """The step that fits a copy of the generator as it is now; made anew only where something has changed."""
        s = self.settings
        weights = Weights(s.batch_norm, s.momentum, s.one_hot, s.adversarial if fraction >= s.warm_up else 0.0)
        facts = (self.generator, teacher, student, weights, self.augmentation)
        if self._inner is None or self._inner[0] != facts:
            self._inner = None  # a recording holds memory that the next one needs
            alone = torch.device(self._device).type == "cuda" and self.world.size == 1
            records = alone and teacher.max_queries is None  # a recorded step cannot refuse
            made = InnerStep(self.generator, teacher, student, weights, self.augmentation, records=records)
            self._inner = facts, made
        step = self._inner[1]
        step.begin(self.generator)
        return step

    @torch.no_grad()
    def _add_gradients(self, own: nn.Module) -> None:
        for common, copied in zip(self.generator.parameters(), own.parameters(), strict=True):
            assert copied.grad is not None
            common.grad = copied.grad.clone() if common.grad is None else common.grad + copied.grad

    @torch.no_grad()
    def _take_way(self, own: nn.Module) -> None:
        for common, copied in zip(self.generator.parameters(), own.parameters(), strict=True):
            common.grad = _REPTILE * (common - copied)

    @torch.no_grad()
    def _reset_first_layer(self) -> None:
        assert isinstance(self.generator, PublishedGenerator)
        torch.nn.init.normal_(self.generator.linear.weight, 0, 0.02)
        torch.nn.init.zeros_(self.generator.linear.bias)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "companions": self.companions.state_dict(),
            "was_reset": self._was_reset,
            "moments": self._earlier,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.companions.load_state_dict(state["companions"])
        self._was_reset = bool(state["was_reset"])
        moments = state["moments"]
        self._earlier = None if moments is None else moments.to(self._device)


def _doublings(spec: TeacherSpec) -> int:
    """First maps of about 8x8."""
    return max(2, round(math.log2(min(spec.input_shape[1:]) / 8)))


class _Best:
    """Keeps the images of the lowest loss, without waiting for the device."""

    def __init__(self) -> None:
        self.images = torch.zeros(0)
        self._loss: Tensor | None = None

    def offer(self, images: Tensor, loss: Tensor) -> None:
        """Images (N,C,H,W) and their loss; both may be overwritten afterwards."""
        if self._loss is None:
            self.images, self._loss = images.clone(), loss.clone()
            return
        better = loss < self._loss
        self.images = torch.where(better, images, self.images)
        self._loss = torch.where(better, loss, self._loss)
