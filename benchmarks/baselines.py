"""What the papers compare with: noise, and real data as the ceiling. Same engine, same student recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from edgedafl.distill import Batch, Recipe, Synthesizer
from edgedafl.files.labelled_arrays import LabelledData
from edgedafl.teachers import Teacher

__all__ = ["NoiseSynthesizer", "RealSynthesizer"]

_ROWS = 256
_STUDENT_STEPS = 12


class _Stateless(Synthesizer):
    """Images from elsewhere: nothing is learned.

    Args:
        teacher: The teacher.
        recipe: How the student learns beside the data-free method that this is compared with. It
            learns at once, and sees fresh images at least every few steps: they cost nothing here.
        device: Where to train.
    """

    def __init__(self, teacher: Teacher, recipe: Recipe, device: torch.device | str = "cpu") -> None:
        self._spec, self._device = teacher.spec, device
        self.recipe = replace(recipe, student_steps=min(recipe.student_steps, _STUDENT_STEPS), begin_at=0.0)

    def step(self, teacher: Teacher, student: nn.Module, fraction: float) -> Batch:
        images = self.sample(_ROWS)
        logits = teacher.scores(images)
        return Batch(images, logits, generated=logits[:0])

    def restart(self) -> None:
        """Nothing to restart."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""


class NoiseSynthesizer(_Stateless):
    """Gaussian noise of mean 0 and deviation 1 per pixel, around the middle of the range."""

    def sample(self, count: int) -> Tensor:
        noise = torch.randn(count, *self._spec.input_shape, device=self._device)
        return self._spec.preprocess.to_model((0.5 + 0.25 * noise).clamp(0, 1))


class RealSynthesizer(_Stateless):
    """The teacher's own training images: the most that distillation can give."""

    def __init__(
        self, teacher: Teacher, recipe: Recipe, data: LabelledData, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(teacher, recipe, device)
        self._pixels = torch.from_numpy(data.images).to(device)

    def sample(self, count: int) -> Tensor:
        rows = torch.randint(len(self._pixels), (count,), device=self._pixels.device)
        return self._spec.preprocess.from_pixels(self._pixels[rows])
