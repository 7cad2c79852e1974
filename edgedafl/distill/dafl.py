"""DAFL exactly as published (arXiv 1904.01186), for comparison.

Generator and student see the same fresh batch once; there is no replay and no adversarial term.
The generator's two inner BatchNorms have eps 0.8 (not momentum), its last BatchNorm makes the
images zero-mean and unit-variance: a normalised image space.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgedafl.distill.losses import activation_loss, information_entropy_loss, one_hot_loss
from edgedafl.distill.synthesizer import Batch, GeneratorSynthesizer, Recipe
from edgedafl.preprocess import Preprocess
from edgedafl.teachers.base import Teacher

__all__ = ["DaflGenerator", "DaflSettings", "DaflSynthesizer"]


@dataclass(frozen=True)
class DaflSettings:
    """The published settings for MNIST; 5.1 and table 1 of the paper, and the authors' code."""

    one_hot: float = 1.0
    entropy: float = 5.0
    activation: float = 0.1
    latent: int = 100
    channels: int = 128
    batch: int = 512
    learning_rate: float = 0.2
    student_learning_rate: float = 2e-3


class DaflGenerator(nn.Module):
    """Linear, two nearest-neighbour doublings with 3x3 convolutions, tanh, BatchNorm.

    Sides that are no multiple of four are generated larger and cropped (the paper's sizes are
    multiples of four and untouched by this).

    Args:
        input_shape: (C, H, W).
        latent: Length of the code.
        channels: Channels of the first stage; the second has half.
    """

    def __init__(self, input_shape: tuple[int, int, int], latent: int, channels: int) -> None:
        super().__init__()
        colours, height, width = input_shape
        self.sides = (height, width)
        self.start = (channels, -(-height // 4), -(-width // 4))
        self.rescale: nn.Module = nn.Identity()
        self.linear = nn.Linear(latent, channels * self.start[1] * self.start[2])
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels, eps=0.8),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(channels, channels // 2, 3, padding=1),
            nn.BatchNorm2d(channels // 2, eps=0.8),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels // 2, colours, 3, padding=1),
            nn.Tanh(),
            nn.BatchNorm2d(colours, affine=False),
        )

    def forward(self, codes: Tensor) -> Tensor:
        images = self.layers(self.linear(codes).reshape(-1, *self.start))
        rescaled: Tensor = self.rescale(images[:, :, : self.sides[0], : self.sides[1]])
        return rescaled


class _Rescale(nn.Module):
    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self._preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        return self._preprocess.to_model(0.5 + 0.25 * images)


class DaflSynthesizer(GeneratorSynthesizer):
    """One generator step of the published algorithm."""

    def __init__(
        self,
        teacher: Teacher,
        *,
        settings: DaflSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings = settings or DaflSettings()
        self.latent = self.settings.latent
        self._spec = teacher.spec
        self._device = device
        self._rate = self.settings.learning_rate
        self.recipe = Recipe(
            student_steps=1,
            student_batch=self.settings.batch,
            learning_rate=self.settings.student_learning_rate,
            decay=False,
            pool=0,
            newest=0,
            newest_until=0.0,
            temperature=1.0,
            ema=0.0,
        )
        self._build()

    def _build(self) -> None:
        s = self.settings
        generator = DaflGenerator(self._spec.input_shape, s.latent, s.channels)
        if self._spec.preprocess.origin != "mean and deviation":
            # The paper's teachers take normalised images; for a bare range, mean and deviation
            # are guessed as half and a quarter of it.
            generator.rescale = _Rescale(self._spec.preprocess)
        self.generator = generator.to(self._device)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), lr=self._rate)

    @property
    def _sample_batch(self) -> int:
        return self.settings.batch

    def step(self, teacher: Teacher, student: nn.Module, fraction: float) -> Batch:
        """L_G = oh * L_oh + a * L_a + ie * L_ie on a fresh batch; constant rates."""
        images = self.generator(self.latents(self.settings.batch))
        answer = teacher(images)
        losses = {
            "one_hot": one_hot_loss(answer.logits),
            "entropy": information_entropy_loss(answer.logits),
        }
        total = self.settings.one_hot * losses["one_hot"] + self.settings.entropy * losses["entropy"]
        if answer.features is not None:
            losses["activation"] = activation_loss(answer.features)
            total = total + self.settings.activation * losses["activation"]
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        losses = {name: value.detach() for name, value in losses.items()}
        return Batch(images.detach(), answer.logits.detach(), losses)
