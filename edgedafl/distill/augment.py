"""Shifted and mirrored copies of images, as far as the teacher takes them for the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from edgedafl.tasks import states
from edgedafl.teachers.base import Teacher

__all__ = ["Augmentation", "choose_augmentation"]

# Shifts and mirroring are chosen per group of a batch: one slice each instead of one gather.
_GROUPS = 8
_ROWS = 400
# A variation is used where at least this share of images keeps the teacher's class under it.
_KEPT = 0.7
# Shifts of an eighth of the side: 4 pixels of 32, as CIFAR networks are trained.
_SHARE_OF_SIDE = 8


@dataclass(frozen=True)
class Augmentation:
    """What varies.

    Attributes:
        shift: Most pixels in each direction; 0 leaves images in place.
        mirror: Whether half of the images are mirrored left to right.
    """

    shift: int = 0
    mirror: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Varied copies of images (N,C,H,W); gradients flow through."""
        if not self.shift and not self.mirror:
            return images
        return torch.cat([self._varied(part) for part in images.chunk(_GROUPS)])

    def _varied(self, images: Tensor) -> Tensor:
        if self.mirror and int(torch.randint(2, ())):
            images = images.flip(3)
        if not self.shift:
            return images
        height, width = images.shape[2:]
        top, left = (int(torch.randint(2 * self.shift + 1, ())) for _ in range(2))
        padded = F.pad(images, (self.shift,) * 4, mode="replicate")
        return padded[:, :, top : top + height, left : left + width]

    def to_dict(self) -> dict[str, Any]:
        """A plain form."""
        return dict(vars(self))


def choose_augmentation(teacher: Teacher, images: Tensor, logits: Tensor) -> Augmentation:
    """Ask the teacher whether images keep their class: digits do not bear mirroring, objects do.

    Args:
        teacher: Asked about two variations of at most 400 images.
        images: (N,C,H,W) in model space.
        logits: The teacher's answers to them, (N, K).
    """
    images, logits = images[:_ROWS], logits[:_ROWS]
    shift = max(1, min(images.shape[2:]) // _SHARE_OF_SIDE)
    task = teacher.spec.task
    classes = states(logits, task).argmax(-1)

    def bears(varied: Tensor) -> bool:
        answers = states(teacher.scores(varied), task).argmax(-1)
        return float((answers == classes).float().mean()) >= _KEPT

    return Augmentation(shift=shift if bears(Augmentation(shift=shift)(images)) else 0, mirror=bears(images.flip(3)))
