"""DAFL exactly as published (arXiv 1904.01186), for comparison.

Generator and student see the same fresh batch once; there is no replay and no adversarial term.
The generator's two inner BatchNorms have eps 0.8 (not momentum), its last BatchNorm makes the
images zero-mean and unit-variance: a normalised image space.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from edgedafl.distill.synthesizers.base import Batch, GeneratorSynthesizer, Recipe, detached
from edgedafl.distill.synthesizers.generators import PublishedGenerator
from edgedafl.distill.training.losses import activation_loss, information_entropy_loss, one_hot_loss
from edgedafl.teachers.base import Teacher, TeacherSpec

__all__ = ["DaflSettings", "DaflSynthesizer"]

_EPSILON = 0.8


def _recipe(batch: int, rate: float, *, residual: bool) -> Recipe:
    return Recipe(
        student_steps=1,
        student_batch=batch,
        student_rate=rate,
        optimizer="sgd" if residual else "adam",
        weight_decay=5e-4 if residual else 0.0,
        decay="steps" if residual else "constant",
        pool=0,
        temperature=1.0,
        ema=0.0,
    )


_MNIST_RECIPE = _recipe(512, 2e-3, residual=False)


@dataclass(frozen=True)
class DaflSettings:
    """Section 5 of the paper and the authors' code; the defaults are those for MNIST.

    Attributes:
        one_hot: Weight of the one-hot loss.
        entropy: Weight of the information-entropy loss (base 10).
        activation: Weight of the activation loss.
        latent: Length of the code.
        channels: Width of the generator.
        batch: Images per step.
        learning_rate: Of the generator's Adam, constant.
        recipe: How the student learns.
    """

    one_hot: float = 1.0
    entropy: float = 5.0
    activation: float = 0.1
    latent: int = 100
    channels: int = 128
    batch: int = 512
    learning_rate: float = 0.2
    recipe: Recipe = _MNIST_RECIPE

    @classmethod
    def of(cls, spec: TeacherSpec) -> DaflSettings:
        """The published settings nearest to a teacher: MNIST, CIFAR-10 or CIFAR-100."""
        if spec.input_shape[0] == 1:
            return cls()
        few = spec.num_classes <= 10
        return cls(
            one_hot=0.05 if few else 0.5,
            entropy=5.0 if few else 20.0,
            activation=0.01,
            latent=1000,
            batch=1024,
            learning_rate=0.02,
            recipe=_recipe(1024, 0.1, residual=True),
        )


class DaflSynthesizer(GeneratorSynthesizer):
    """One generator step of the published algorithm.

    Examples:
        >>> from edgedafl.teachers import load_teacher
        >>> DaflSynthesizer(load_teacher("examples/mnist/teacher.onnx")).sample(3).shape
        torch.Size([3, 1, 32, 32])
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        settings: DaflSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings = settings or DaflSettings.of(teacher.spec)
        super().__init__(teacher, self.settings.recipe, self.settings.latent, self.settings.learning_rate, device)

    def _make(self) -> nn.Module:
        s, spec = self.settings, self._spec
        return PublishedGenerator(
            spec.input_shape, s.latent, s.channels, spec.preprocess, "normalised", epsilon=_EPSILON
        )

    def _optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.generator.parameters(), lr=self._rate)

    @property
    def _sample_batch(self) -> int:
        return self.settings.batch

    def step(self, teacher: Teacher, student: nn.Module, fraction: float) -> Batch:
        """L_G = oh * L_oh + a * L_a + ie * L_ie on a fresh batch; constant rates."""
        images = self.generator(self.latents(self.settings.batch))
        answer = teacher(images)
        logits = self._states(answer.logits)
        losses = {"one_hot": one_hot_loss(logits), "entropy": information_entropy_loss(logits, world=self.world)}
        total = self.settings.one_hot * losses["one_hot"] + self.settings.entropy * losses["entropy"]
        if answer.features is not None:
            losses["activation"] = activation_loss(answer.features)
            total = total + self.settings.activation * losses["activation"]
        self._descend(total)
        return Batch(images.detach(), answer.logits.detach(), detached(losses))
