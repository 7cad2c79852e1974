"""Our default for teachers with gradients: DAFL's losses, an adversarial term and replay.

The generator is asked for images of a clear class, all classes, strong features (DAFL) and, after
a warm-up, for images on which the student still differs from the teacher. Procedural images of the
families that tell most about this teacher come beside them. All of it goes into a pool from which
the student learns many times over.

A generator that is kept under the adversarial term drifts to ever stranger images, and a small
student spends itself on them. So the generator has several lives: each begins with fresh weights,
and the images of all lives stay in the pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgedafl.distill.synthesizers.base import Batch, GeneratorSynthesizer, Recipe, detached, evaluating
from edgedafl.distill.synthesizers.generators import SlimGenerator
from edgedafl.distill.synthesizers.priors import PriorMixture
from edgedafl.distill.synthesizers.procedural_images import ProceduralImages
from edgedafl.distill.training.balance import EntropyWeight
from edgedafl.distill.training.budget import cosine
from edgedafl.distill.training.losses import (
    activation_loss,
    balanced_classes,
    batch_norm_loss,
    distillation_loss,
    information_entropy_loss,
    one_hot_loss,
)
from edgedafl.teachers.base import Teacher, TeacherOutput, TeacherSpec

__all__ = ["AdversarialSettings", "AdversarialSynthesizer"]


@dataclass(frozen=True)
class AdversarialSettings:
    """Defaults, chosen over several teachers and datasets; see `docs/benchmarks.md`.

    Attributes:
        one_hot: Weight of the one-hot loss.
        entropy: First weight of the information-entropy loss (base 10); it sets itself later.
        activation: Weight of the activation loss.
        adversarial: Weight of the disagreement.
        batch_norm: Weight of the BatchNorm statistics, per layer, where the teacher has them.
        lives: How often the generator begins anew; see the module's text.
        min_restart_steps: Steps that a generator needs to be worth replacing.
        warm_up: Share of a life before the adversarial term begins.
        latent: Length of the code.
        channels: Width of the generator.
        batch: Images per generator step.
        learning_rate: Of the generator's Adam; decays on a cosine.
        every: Keep one of every so many generated images in the replay pool: images under the
            adversarial term are odd, and a few suffice.
        priors: Procedural images per generator step, beside the generated ones.
        prior_trial: Images per family by which their shares are set.
        recipe: How the student learns. At temperature 4 it learns the order of all classes, not
            only the first; the disagreement is taken at the same.
    """

    one_hot: float = 1.0
    entropy: float = 5.0
    activation: float = 0.1
    adversarial: float = 4.0
    batch_norm: float = 0.0
    lives: int = 8
    min_restart_steps: int = 100
    warm_up: float = 0.3
    latent: int = 64
    channels: int = 32
    batch: int = 64
    learning_rate: float = 2e-3
    every: int = 6
    priors: int = 224
    prior_trial: int = 300
    recipe: Recipe = Recipe(
        student_steps=12, student_batch=128, student_rate=8e-3, newest=2000, newest_until=0.6, weighted=True
    )

    @classmethod
    def of(cls, spec: TeacherSpec) -> AdversarialSettings:
        """The defaults for a teacher.

        BatchNorm statistics keep generated images close to the teacher's data. Then all of them
        are worth learning from, and fewer procedural ones are needed.
        """
        if not spec.batch_norms:
            return cls()
        return cls(adversarial=2.0, batch_norm=10.0, batch=128, every=1, priors=96)


class AdversarialSynthesizer(GeneratorSynthesizer):
    """One slim generator, trained against the teacher and the student."""

    def __init__(
        self,
        teacher: Teacher,
        *,
        settings: AdversarialSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        s = self.settings = settings or AdversarialSettings.of(teacher.spec)
        super().__init__(teacher, s.recipe, s.latent, s.learning_rate, device)
        self._life = 0
        self._age = 0
        # Too few images per class to see the balance in one batch: remember earlier ones.
        empty = self._states(torch.zeros(1, teacher.spec.num_classes, device=device))
        self._small = s.batch < 10 * empty.shape[-1]
        self._running = torch.softmax(empty, -1)[0]
        self._balance = EntropyWeight(s.entropy, empty.shape[-1], device)
        self._watched = s.batch_norm > 0 and teacher.spec.batch_norms > 0
        self.companions = ProceduralImages(teacher.spec, s.priors, s.prior_trial, device)

    def _make(self) -> nn.Module:
        return SlimGenerator.of(self._spec, latent=self.settings.latent, channels=self.settings.channels)

    def use_priors(self, priors: PriorMixture) -> None:
        self.companions.use_priors(priors)

    def procedural(self, teacher: Teacher) -> Batch | None:
        return self.companions.alone(teacher, self.settings.priors + self.settings.batch)

    @property
    def _sample_batch(self) -> int:
        return self.settings.batch

    def step(self, teacher: Teacher, student: nn.Module, fraction: float) -> Batch:
        """One generator step; see the module's text."""
        s = self.settings
        self.companions.tune(teacher)
        local = self._begin_life(fraction)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate * cosine(local)
        images = self.generator(self.latents(s.batch))
        answer = teacher(images, batch_norm=self._watched)
        losses, total = self._losses(student, images, answer, adversarial=local >= s.warm_up)
        self._descend(total)
        made = Batch(images.detach(), answer.logits.detach(), detached(losses))
        return self.companions.combine_with(made, teacher, every=s.every)

    def _losses(
        self, student: nn.Module, images: Tensor, answer: TeacherOutput, *, adversarial: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        s, logits = self.settings, self._states(answer.logits)
        losses = {
            "one_hot": one_hot_loss(logits, balanced_classes(logits)),
            "entropy": information_entropy_loss(logits, self._mean_classes(logits), world=self.world),
        }
        balance = self._balance(losses["entropy"], losses["one_hot"])
        total = s.one_hot * losses["one_hot"] + balance * losses["entropy"]
        if answer.features is not None:
            losses["activation"] = activation_loss(answer.features)
            total = total + s.activation * losses["activation"]
        if answer.batch_norm:
            losses["batch_norm"] = batch_norm_loss(answer.batch_norm) / len(answer.batch_norm)
            total = total + s.batch_norm * losses["batch_norm"]
        if adversarial and s.adversarial:
            with evaluating(student):
                gap = distillation_loss(self._states(student(images)), logits, s.recipe.temperature)
            losses["adversarial"] = -torch.log1p(gap)
            total = total + s.adversarial * losses["adversarial"]
        return losses, total

    def _begin_life(self, fraction: float) -> float:
        """Start a new life when it is due; returns progress through the present cycle.

        Each of the equal parts of the budget is a cycle: first clear images, then adversarial
        ones. A generator too young to have learned its trade lives on through the next cycle.
        """
        place = min(fraction, 0.999999) * self.settings.lives
        self._age += 1
        if int(place) != self._life:
            self._life = int(place)
            if self._age > self.settings.min_restart_steps:
                self._age = 1
                self._build()
        return place - int(place)

    def _mean_classes(self, logits: Tensor) -> Tensor | None:
        if not self._small:
            return None
        before = self._running
        mean = torch.softmax(logits.detach(), -1).mean(0)
        self._running = 0.9 * before + 0.1 * mean
        return before

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "life": self._life,
            "age": self._age,
            "running": self._running,
            "balance": self._balance.state_dict(),
            "companions": self.companions.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._life, self._age = int(state["life"]), int(state["age"])
        self._running = state["running"].to(self._device)
        self._balance.load_state_dict(state["balance"])
        self.companions.load_state_dict(state["companions"])
