"""Procedural images beside generated ones, of the families that tell most about a teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgedafl.distill.synthesizers.base import Batch
from edgedafl.distill.synthesizers.priors import FAMILIES, Family, PriorMixture
from edgedafl.distill.training.budget import rows_within_budget
from edgedafl.tasks import states
from edgedafl.teachers.base import Teacher, TeacherSpec

__all__ = ["ProceduralImages"]

# Multiply-accumulates of the trial: some two seconds on a small processor.
_EFFORT = 2e11
_FEWEST = 20


class ProceduralImages:
    """Draws some procedural images per step.

    Args:
        spec: Of the teacher.
        count: Images per step; 0 for none.
        trial: Images per family by which their shares are set, at the first step; fewer where the
            teacher is slow.
        device: Where images are wanted.
        pictures: Draws the user's own pictures.

    Examples:
        >>> from edgedafl.teachers import load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx")
        >>> images = ProceduralImages(teacher.spec, 8, 20, "cpu")
        >>> images.tune(teacher)
        >>> images.draw(4).shape
        torch.Size([4, 1, 32, 32])
    """

    def __init__(
        self,
        spec: TeacherSpec,
        count: int,
        trial: int,
        device: torch.device | str,
        pictures: Family | None = None,
    ) -> None:
        self.priors = PriorMixture(spec.input_shape, seed=int(torch.randint(2**31, ())), pictures=pictures)
        self._spec, self._count, self._device = spec, count, device
        effort = _EFFORT / len(FAMILIES)
        self._trial = rows_within_budget(
            spec.macs, effort=effort, fewest=min(_FEWEST, trial), most=trial, device=device
        )
        self._tuned = not count

    def use_priors(self, priors: PriorMixture) -> None:
        """Take over families and shares that others have found: the teacher is not asked again."""
        self._tuned = True
        self.priors = priors

    def tune(self, teacher: Teacher) -> None:
        """Set the families' shares, once."""
        if self._tuned:
            return
        self._tuned = True
        model = self._spec.preprocess.to_model
        self.priors.tune(
            lambda unit: states(teacher.scores(model(unit.to(self._device))), self._spec.task), self._trial
        )

    def draw(self, count: int) -> Tensor:
        """Procedural images (count,C,H,W) in model space, families in their shares."""
        return self._spec.preprocess.to_model(self.priors.draw(count).to(self._device))

    def combine_with(self, batch: Batch, teacher: Teacher, *, every: int = 1) -> Batch:
        """A batch of procedural images and one of every `every` generated ones.

        Health is judged by the generated ones alone: procedural images may be unbalanced.
        """
        if not self._count:
            return batch
        images = self.draw(self._count)
        logits = teacher.scores(images)
        kept, answers = batch.images[::every], batch.logits[::every]
        return Batch(torch.cat([images, kept]), torch.cat([logits, answers]), batch.losses, batch.logits)

    def alone(self, teacher: Teacher, count: int) -> Batch:
        """A batch of procedural images only; no generator's health is judged by it."""
        images = self.draw(count)
        logits = teacher.scores(images)
        return Batch(images, logits, {}, logits[:0])

    def state_dict(self) -> dict[str, Any]:
        """Shares and random numbers."""
        return {"mixture": self.priors.state_dict(), "tuned": self._tuned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.priors.load_state_dict(state["mixture"])
        self._tuned = bool(state["tuned"])
