"""Shifted and mirrored copies of images, as far as the teacher takes them for the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from edgedafl.constants import constant
from edgedafl.distill.training.budget import rows_within_budget
from edgedafl.tasks import states
from edgedafl.teachers.base import Teacher, TeacherSpec

__all__ = ["Augmentation", "choose_augmentation", "mixed"]

# Shifts and mirroring are chosen per group of a batch: one slice each instead of one gather.
_GROUPS = 32
_PATCHED = 16  # images that share the place of a patch
_ROWS, _FEWEST_ROWS = 400, 100
_EFFORT = 1e10  # multiply-accumulates of one variation
# A variation is used where at least this share of images keeps the teacher's class under it.
_KEPT = 0.7
# Shifts of an eighth of the side: 4 pixels of 32, as CIFAR networks are trained.
_SHARE_OF_SIDE = 8
# Networks for images up to this side are trained on crops of padded images, others on crops of
# larger images, which have no border.
_PADDED_SIDE = 64


@dataclass(frozen=True)
class Augmentation:
    """What varies.

    Attributes:
        shift: Most pixels in each direction; 0 leaves images in place.
        mirror: Whether half of the images are mirrored left to right.
        border: What a shift brings in, one value per channel in model space; None repeats the edge.
    """

    shift: int = 0
    mirror: bool = False
    border: tuple[float, ...] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Varied copies of images (N,C,H,W); gradients flow through."""
        if not self.shift and not self.mirror:
            return images
        if images.is_cuda:
            return self._each(images)
        height, width = images.shape[2:]
        parts = self._padded(images).chunk(_GROUPS)
        return torch.cat([self._varied(part, height, width) for part in parts])

    def _padded(self, images: Tensor) -> Tensor:
        if not self.shift:
            return images
        frame = (self.shift,) * 4
        if self.border is None:
            return F.pad(images, frame, mode="replicate")
        outside = constant(self.border, images).reshape(1, -1, 1, 1)
        return F.pad(images - outside, frame) + outside

    def _each(self, images: Tensor) -> Tensor:
        """Every image varied by itself, in one gather: on a GPU many small copies cost more than that."""
        count, channels, height, width = images.shape
        padded = self._padded(images)
        device, room = images.device, 2 * self.shift + 1
        top, left = (torch.randint(room, (count, 1), device=device) for _ in range(2))
        columns = torch.arange(width, device=device).expand(count, width)
        if self.mirror:
            columns = torch.where(torch.rand(count, 1, device=device) < 0.5, width - 1 - columns, columns)
        rows = top + torch.arange(height, device=device)
        places = (rows * padded.shape[3]).unsqueeze(2) + (left + columns).unsqueeze(1)
        flat = places.reshape(count, 1, -1).expand(-1, channels, -1)
        return padded.flatten(2).gather(2, flat).reshape(images.shape)

    def _varied(self, padded: Tensor, height: int, width: int) -> Tensor:
        if self.mirror and int(torch.randint(2, ())):
            padded = padded.flip(3)
        top, left = (int(torch.randint(2 * self.shift + 1, ())) for _ in range(2))
        return padded[:, :, top : top + height, left : left + width]

    def to_dict(self) -> dict[str, Any]:
        """A plain form."""
        return dict(vars(self))


def mixed(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Images as they are, their weighted means with others, or patches of others in them: one of the three per batch.

    After mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899). The teacher has to be asked about the result.

    Args:
        images: (N,C,H,W).
        generator: Of the random numbers, on the images' device; the global one where None.

    Examples:
        >>> import torch
        >>> mixed(torch.rand(8, 3, 16, 16), torch.Generator().manual_seed(0)).shape
        torch.Size([8, 3, 16, 16])
    """
    kind = int(torch.randint(3, (), generator=generator))
    if kind == 0 or len(images) < 2:
        return images
    others = images[torch.randperm(len(images), device=images.device, generator=generator)]
    if kind == 1:
        share = torch.rand(len(images), 1, 1, 1, device=images.device, generator=generator)
        return share * images + (1 - share) * others
    height, width = images.shape[2:]
    result = images.clone()
    for rows in torch.arange(len(images)).split(_PATCHED):
        shares = 0.25 + 0.5 * torch.rand(2, generator=generator)
        tall, wide = (max(1, int(side * share)) for side, share in zip((height, width), shares.tolist(), strict=True))
        top, left = (int(torch.randint(side + 1, (), generator=generator)) for side in (height - tall, width - wide))
        part = (slice(int(rows[0]), int(rows[-1]) + 1), slice(None), slice(top, top + tall), slice(left, left + wide))
        result[part] = others[part]
    return result


def choose_augmentation(teacher: Teacher, images: Tensor, logits: Tensor) -> Augmentation:
    """Ask the teacher whether images keep their class: digits do not bear mirroring, objects do.

    Args:
        teacher: Asked about a few variations of at most 400 images.
        images: (N,C,H,W) in model space.
        logits: The teacher's answers to them, (N, K).

    Examples:
        >>> from edgedafl.teachers import load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx")
        >>> images = torch.zeros(100, *teacher.spec.input_shape)
        >>> choose_augmentation(teacher, images, teacher.scores(images)).shift
        4
    """
    rows = rows_within_budget(teacher.spec.macs, effort=_EFFORT, fewest=_FEWEST_ROWS, most=_ROWS, device=images.device)
    images, logits = images[:rows], logits[:rows]
    task = teacher.spec.task
    classes = states(logits, task).argmax(-1)

    def bears(varied: Tensor) -> bool:
        answers = states(teacher.scores(varied), task).argmax(-1)
        return float((answers == classes).float().mean()) >= _KEPT

    shifts = [shift for shift in _shifts(teacher.spec) if bears(shift(images))]
    chosen = shifts[0] if shifts else Augmentation()
    return Augmentation(chosen.shift, bears(images.flip(3)), chosen.border)


def _shifts(spec: TeacherSpec) -> list[Augmentation]:
    """Shifts to try, the preferred one first.

    Where small images had padded crops in training, BatchNorm statistics were measured with their
    black borders. Generated images held to those statistics would have to show borders themselves,
    were the crops not made in the same way.
    """
    shift = max(1, min(spec.input_shape[1:]) // _SHARE_OF_SIDE)
    repeated = Augmentation(shift)
    if spec.batch_norms and max(spec.input_shape[1:]) <= _PADDED_SIDE:
        return [Augmentation(shift, border=spec.preprocess.low), repeated]
    return [repeated]
