"""One student step up to its gradients: the teacher's answers, the student's, and what lies between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgedafl.distill.synthesizers.base import Recipe
from edgedafl.distill.training.compute import Compute
from edgedafl.distill.training.losses import distillation_loss
from edgedafl.graph.canonicalize import LOGITS
from edgedafl.students import FeatureLoss, module_layers
from edgedafl.tasks import states
from edgedafl.teachers.base import Teacher

__all__ = ["StudentStep", "images_per_pass"]

_MEMORY = 3 << 29
_HELD, _HELD_WITH_FEATURES = 4, 8
"""Values in memory for each that a layer of the student makes: for its gradient, and the teacher's to compare."""
_FEWEST = 4


class StudentStep:
    """Leaves the gradients of one batch behind.

    Args:
        teacher: Asked where a batch comes without answers.
        forward: The student as it is called in training.
        layers: Compares what layers make; None compares the answers alone.
        recipe: How the student learns.
        compute: How the device is used.
        clear: Forgets the gradients of the step before.
        at_once: Images of one forward and backward pass; gradients of a larger batch are summed.
    """

    def __init__(
        self,
        teacher: Teacher,
        forward: Callable[[Tensor], Tensor],
        layers: FeatureLoss | None,
        recipe: Recipe,
        compute: Compute,
        clear: Callable[[], None],
        at_once: int,
    ) -> None:
        self._teacher, self._forward, self._layers = teacher, forward, layers
        self._recipe, self._compute, self._clear, self._at_once = recipe, compute, clear, at_once
        # Under a limit on queries the teacher is not asked about every student batch.
        self.compares = layers is not None and teacher.max_queries is None

    @property
    def moves(self) -> bool:
        """Whether student and teacher are compared on moved values."""
        return self._layers is not None and self.compares and self._layers.moves

    def __call__(self, images: Tensor, logits: Tensor | None = None) -> tuple[Tensor, ...]:
        """Loss and the teacher's logits (N, K); the weights have their gradients.

        Args:
            images: (N,C,H,W) in model space.
            logits: The teacher's answers; None asks it.
        """
        self._clear()
        parts = images.split(self._at_once)
        known = [None] * len(parts) if logits is None else logits.split(self._at_once)
        losses, answers = [], []
        for part, given in zip(parts, known, strict=True):
            loss, answer = self._loss(part, given)
            loss = loss if len(parts) == 1 else loss * (len(part) / len(images))
            loss.backward()
            losses.append(loss.detach())
            answers.append(answer)
        return (losses[0], answers[0]) if len(parts) == 1 else (torch.stack(losses).sum(), torch.cat(answers))

    def rows_compared(self, count: int) -> int:
        """How many of so many images are compared layer by layer: those that fit beside each other."""
        if self._layers is None or not self.compares:
            return 0
        part = min(count, self._at_once)
        return count if self._layers.rows(part) == part else self._layers.rows(count)

    def rows_asked(self, count: int, *, asks: bool) -> int:
        """Rows that the teacher sees in one step."""
        compared = self.rows_compared(count)
        return compared + (count if asks and not self._cover(compared, count) else 0)

    def _loss(self, images: Tensor, logits: Tensor | None) -> tuple[Tensor, Tensor]:
        task = self._teacher.spec.task
        with self._compute.autocast():
            layers = self._layers.teacher_features(images) if self._layers is not None and self.compares else {}
            self._teacher.queries += len(layers.get(LOGITS, ()))
            logits = self._answers(images, layers) if logits is None else logits
            guess = self._forward(images)
        return self._distance(states(guess.float(), task), states(logits, task)) + self._feature_loss(layers), logits

    def _answers(self, images: Tensor, layers: Mapping[str, Tensor]) -> Tensor:
        """The teacher's logits; those beside its layers are the same but for a constant."""
        known = layers.get(LOGITS, images[:0])
        return known.float() if self._cover(len(known), len(images)) else self._teacher.scores(images)

    def _cover(self, known: int, count: int) -> bool:
        """Whether the logits beside the teacher's layers are answers to all images."""
        return known == count and (self.moves or self._recipe.loss == "kl")

    def _feature_loss(self, wanted: Mapping[str, Tensor]) -> Tensor | float:
        """What the student's layers make of the images against the teacher's."""
        if self._layers is None:
            return 0.0
        seen = self._layers.take_features()
        if not self.compares:
            return 0.0
        with self._compute.autocast():
            return self._recipe.layers * self._layers.distance(wanted, seen)

    def _distance(self, guess: Tensor, target: Tensor) -> Tensor:
        if self._recipe.loss == "l1":
            return F.l1_loss(guess, target)
        return distillation_loss(guess, target, self._recipe.temperature)


def images_per_pass(
    student: nn.Module, input_shape: tuple[int, int, int], batch: int, device: torch.device, *, features: bool
) -> int:
    """How many images of a batch go through a student at once.

    All of them on a GPU, and where BatchNorms take their statistics from the batch.

    Args:
        student: Its layers say how much memory an image takes.
        input_shape: (C, H, W).
        batch: Images of one step.
        device: Where it trains.
        features: Whether its layers are compared with the teacher's.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 30 * 30, 10))
        >>> images_per_pass(network, (3, 32, 32), 128, torch.device("cpu"), features=False)
        128
    """
    # torch has no public name for what all BatchNorms are
    if device.type != "cpu" or any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in student.modules()):
        return batch
    values = sum(layer.outputs for layer in module_layers(student, input_shape))
    each = 4 * max(values, 1) * (_HELD_WITH_FEATURES if features else _HELD)
    return min(batch, max(_FEWEST, _MEMORY // each))
