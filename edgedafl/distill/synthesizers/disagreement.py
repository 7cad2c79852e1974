"""Methods whose generator seeks what the student has not learned: DFAD, ZSKT and DFQ.

They differ in how the difference is measured, in what keeps the images sane, and in how often the
student learns. ZSKT's attention transfer needs a student of the teacher's own topology and is left
out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgedafl.distill.synthesizers.base import Batch, GeneratorSynthesizer, Recipe, detached, evaluating
from edgedafl.distill.synthesizers.generators import PublishedGenerator
from edgedafl.distill.training.losses import (
    batch_norm_loss,
    distillation_loss,
    information_entropy_loss,
    one_hot_loss,
)
from edgedafl.teachers.base import Teacher, TeacherSpec

__all__ = ["DisagreementSettings", "DisagreementSynthesizer", "dfad", "dfq", "zskt"]

_BANS = 2.302585  # the published balance weight is for natural logarithms, ours for base 10


@dataclass(frozen=True)
class DisagreementSettings:
    """One of the methods; see `dfad`, `zskt` and `dfq`.

    Attributes:
        distance: `l1` of raw logits, or `kl` at temperature 1.
        batch_norm: Weight of the BatchNorm statistics, where the teacher has them.
        one_hot: Weight of the one-hot loss.
        balance: Weight of the information-entropy loss (base 10).
        output: Output stage of the generator.
        latent: Length of the code.
        channels: Width of the generator.
        batch: Images per generator step.
        learning_rate: Of the generator's Adam.
        betas: Of the generator's Adam.
        fresh: Whether every student step has images of its own; else all share the generator's.
        clip: Largest norm of the generator's gradient; 0 leaves it.
        recipe: How the student learns.
    """

    distance: Literal["l1", "kl"]
    recipe: Recipe
    batch_norm: float = 0.0
    one_hot: float = 0.0
    balance: float = 0.0
    output: Literal["normalised", "unbounded", "pixels"] = "normalised"
    latent: int = 256
    channels: int = 128
    batch: int = 256
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    fresh: bool = True
    clip: float = 0.0


def dfad(spec: TeacherSpec) -> DisagreementSettings:
    """Data-Free Adversarial Distillation (Fang et al. 2019): L1 both ways, five student steps.

    Examples:
        >>> from edgedafl.teachers import load_teacher
        >>> dfad(load_teacher("examples/mnist/teacher.onnx").spec).recipe.student_steps
        5
    """
    digits = spec.input_shape[0] == 1
    batch = 512 if digits else 256
    recipe = Recipe(
        student_steps=5,
        student_batch=batch,
        student_rate=0.01 if digits else 0.1,
        optimizer="sgd",
        weight_decay=1e-4 if digits else 5e-4,
        decay="steps",
        pool=0,
        loss="l1",
        temperature=1.0,
        ema=0.0,
    )
    return DisagreementSettings("l1", recipe, latent=100 if digits else 256, batch=batch)


def zskt(spec: TeacherSpec) -> DisagreementSettings:
    """Zero-Shot Knowledge Transfer (Micaelli and Storkey 2019): ten student steps on one batch.

    Examples:
        >>> from edgedafl.teachers import load_teacher
        >>> zskt(load_teacher("examples/mnist/teacher.onnx").spec).recipe.student_steps
        10
    """
    recipe = Recipe(10, 128, 2e-3, pool=0, temperature=1.0, ema=0.0)
    return DisagreementSettings("kl", recipe, output="unbounded", latent=100, batch=128, fresh=False, clip=5.0)


def dfq(spec: TeacherSpec) -> DisagreementSettings:
    """Data-Free Quantization's generator (Choi et al. 2020) as others distill with it.

    Examples:
        >>> from edgedafl.teachers import load_teacher
        >>> dfq(load_teacher("examples/mnist/teacher.onnx").spec).recipe.student_steps
        10
    """
    recipe = Recipe(10, 256, 0.1, optimizer="sgd", weight_decay=1e-4, pool=0, temperature=1.0, ema=0.0)
    return DisagreementSettings(
        "kl", recipe, batch_norm=1.0, one_hot=1.0, balance=20 * _BANS, output="pixels", betas=(0.5, 0.999)
    )


class DisagreementSynthesizer(GeneratorSynthesizer):
    """One generator step, then images for all student steps."""

    def __init__(
        self,
        teacher: Teacher,
        *,
        settings: DisagreementSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        s = self.settings = settings or dfad(teacher.spec)
        super().__init__(teacher, s.recipe, s.latent, s.learning_rate, device)
        self._watched = s.batch_norm > 0 and teacher.spec.batch_norms > 0

    def _make(self) -> nn.Module:
        s, spec = self.settings, self._spec
        return PublishedGenerator(spec.input_shape, s.latent, s.channels, spec.preprocess, s.output)

    def _optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.generator.parameters(), lr=self._rate, betas=self.settings.betas)

    @property
    def _sample_batch(self) -> int:
        return self.settings.batch

    def step(self, teacher: Teacher, student: nn.Module, fraction: float) -> Batch:
        """The generator moves where the student differs."""
        s = self.settings
        images = self.generator(self.latents(s.batch))
        answer = teacher(images, batch_norm=self._watched)
        logits = self._states(answer.logits)
        losses = {"disagreement": -self._distance(student, images, logits)}
        total = losses["disagreement"]
        if answer.batch_norm:
            losses["batch_norm"] = batch_norm_loss(answer.batch_norm)
            total = total + s.batch_norm * losses["batch_norm"]
        if s.one_hot:
            losses["one_hot"] = one_hot_loss(logits)
            total = total + s.one_hot * losses["one_hot"]
        if s.balance:
            losses["entropy"] = information_entropy_loss(logits, world=self.world)
            total = total + s.balance * losses["entropy"]
        self._descend(total)
        if not s.fresh:
            return Batch(images.detach(), answer.logits.detach(), detached(losses))
        with torch.no_grad():
            shown = torch.cat([self.generator(self.latents(s.batch)) for _ in range(s.recipe.student_steps)])
        return Batch(shown, teacher.scores(shown), detached(losses))

    def _distance(self, student: nn.Module, images: Tensor, logits: Tensor) -> Tensor:
        with evaluating(student):
            guess = self._states(student(images))
        if self.settings.distance == "l1":
            return F.l1_loss(guess, logits)
        return distillation_loss(guess, logits)

    def _clip(self, parameters: list[nn.Parameter]) -> None:
        if self.settings.clip:
            nn.utils.clip_grad_norm_(parameters, self.settings.clip)
