"""The contract of a synthesizer: the part that makes images for the student to learn from."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from edgedafl.tasks import states
from edgedafl.teachers.base import Teacher, TeacherSpec

__all__ = ["Batch", "GeneratorSynthesizer", "Recipe", "Synthesizer"]


@dataclass(frozen=True)
class Batch:
    """Fresh images (N,C,H,W) in model space with the teacher's logits (N,K).

    Attributes:
        losses: The synthesizer's loss terms by name, as scalar tensors (reading one waits for
            the device, so only the reporting step does).
        generated: The teacher's logits on what a generator made, by which its health is judged;
            None where that is all of them.
    """

    images: Tensor
    logits: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    generated: Tensor | None = None

    @classmethod
    def nothing(cls, spec: TeacherSpec, device: torch.device | str) -> Batch:
        """A step that asked the teacher about no image."""
        images = torch.zeros(0, *spec.input_shape, device=device)
        return cls(images, images.new_zeros(0, spec.num_classes))


@dataclass(frozen=True)
class Recipe:
    """How the student learns beside a synthesizer.

    Attributes:
        student_steps: Student steps per synthesizer step.
        student_batch: Images per student step.
        learning_rate: Peak rate of the student's Adam.
        decay: Whether the rate follows a cosine to its floor; constant otherwise.
        pool: Capacity of the replay pool; 0 trains on the fresh batch itself.
        newest: Half of a student batch comes from that many newest images.
        newest_until: Progress after which batches are drawn from the whole pool alike: the
            student should end on everything it has seen.
        temperature: Of the distillation loss.
        ema: Decay of the averaged student; 0 keeps the last weights.
        weighted: Whether images are drawn by worth (see `worth`) instead of evenly.
    """

    student_steps: int
    student_batch: int
    learning_rate: float
    decay: bool
    pool: int
    newest: int
    newest_until: float
    temperature: float
    ema: float
    weighted: bool = False


class Synthesizer(abc.ABC):
    """Makes batches; owns whatever it learns to do so."""

    recipe: Recipe

    @abc.abstractmethod
    def step(self, teacher: Teacher, student: nn.Module, fraction: float) -> Batch:
        """Learn once and return fresh images.

        Args:
            teacher: Asked for logits, features and gradients.
            student: The student as it stands; not changed here.
            fraction: Progress through the budget, in [0, 1].
        """

    def observe(self, images: Tensor, logits: Tensor) -> None:  # noqa: B027  (most need nothing)
        """See a batch that the student has just learned from."""

    @abc.abstractmethod
    def sample(self, count: int) -> Tensor:
        """Images (count,C,H,W) in model space, for probes and pictures."""

    @abc.abstractmethod
    def restart(self) -> None:
        """Begin again from fresh weights with a lower rate, after a collapse."""

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything learned so far."""

    @abc.abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""


class GeneratorSynthesizer(Synthesizer):
    """What synthesizers with one generator and one optimizer share."""

    generator: nn.Module
    optimizer: torch.optim.Optimizer
    latent: int
    _rate: float
    _spec: TeacherSpec
    _device: torch.device | str

    @abc.abstractmethod
    def _build(self) -> None:
        """Create generator and optimizer."""

    def _to_model(self, unit: Tensor) -> Tensor:
        """Images in [0, 1] to model space, on the training device."""
        return self._spec.preprocess.to_model(unit.to(self._device))

    def _states(self, logits: Tensor) -> Tensor:
        """Logits as the losses take them; see `tasks`."""
        return states(logits, self._spec.task)

    def latents(self, count: int) -> Tensor:
        """Standard normal codes (count, latent) on the generator's device."""
        device = next(self.generator.parameters()).device
        return torch.randn(count, self.latent, device=device)

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """In training mode, as it was trained: batch statistics are part of the generator."""
        pieces = []
        for start in range(0, count, self._sample_batch):
            images = self.generator(self.latents(self._sample_batch))
            pieces.append(images[: count - start])
        return torch.cat(pieces)

    @property
    @abc.abstractmethod
    def _sample_batch(self) -> int:
        """Batch size the generator was trained with."""

    def restart(self) -> None:
        self._rate *= 0.3
        self._build()

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rate": self._rate,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._rate = float(state["rate"])
