"""A teacher's layers beside a student's: a lesson for every layer, not only for the last."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from types import MappingProxyType
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgedafl.graph.canonicalize import IMAGE
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.moments import Movement
from edgedafl.graph.trainable import TrainableGraph
from edgedafl.students.features.extractor import FeatureExtractor

__all__ = ["FeatureLoss", "first_rows", "relative_error"]

# Most bytes of the compared layers on one batch; of larger ones only the first images are compared.
_MEMORY = 2 << 30
_LEAST_VARIANCE = 1e-8
# Maps that hardly vary around a large mean would weigh without bound, and steps along them diverge.
_SHARE_OF_MEAN = 0.25


class FeatureLoss(abc.ABC):
    """What a student's layers make of images against what its teacher's make.

    Args:
        extractor: The student as it is called in training; it keeps what its layers make.
        learned: Weights that are trained beside the student, and are not part of it.
        teacher: The teacher's network, which keeps what its layers make.
        elements: Elements of all that is compared, per image.
        movements: Of the teacher's values, while it shows what its layers make.

    Attributes:
        extractor: As given.
        learned: As given.
    """

    def __init__(
        self,
        extractor: TrainableGraph | FeatureExtractor,
        learned: nn.Module,
        teacher: OnnxModule,
        elements: int,
        movements: Mapping[str, Movement] = MappingProxyType({}),
    ) -> None:
        self.extractor, self.learned = extractor, learned
        self._teacher = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._movements = dict(movements)
        self._rows = max(1, _MEMORY // (4 * elements))

    def to(self, device: torch.device | str) -> Self:
        """Move to a device."""
        for module in (self._teacher, self.learned, self.extractor):
            module.to(device)
        self._movements = {name: movement.to(device) for name, movement in self._movements.items()}
        return self

    @property
    def moves(self) -> bool:
        """Whether the teacher shows moved values: its answers beside them are others than those to the images."""
        return bool(self._movements)

    def hold_still(self) -> None:
        """Move nothing, in neither network."""
        self._movements = {}
        if isinstance(self.extractor, TrainableGraph):
            self.extractor.move({})

    def rows(self, count: int) -> int:
        """How many of so many images are compared."""
        return min(count, self._rows)

    @torch.no_grad()
    def teacher_features(self, images: Tensor) -> dict[str, Tensor]:
        """What the teacher's layers make of images (N,C,H,W), or of the first of them, with its `logits`."""
        values: dict[str, Tensor] = self._teacher.run({IMAGE: images[: self._rows]}, self._movements)
        return values

    def take_features(self) -> dict[str, Tensor]:
        """What the student's layers made of the last batch in training, once."""
        return self.extractor.take_features()

    @abc.abstractmethod
    def distance(self, target_features: Mapping[str, Tensor], student_features: Mapping[str, Tensor]) -> Tensor:
        """How far both are apart, in units of the size of what the teacher makes, mean over layers.

        Args:
            target_features: From the teacher, see `wanted`.
            student_features: What the student's layers made of the same images.
        """


def first_rows(value: Tensor, rows: int) -> Tensor:
    """The first rows; the value itself where that is all: gradients of slices are copies.

    Examples:
        >>> first_rows(torch.zeros(5, 2), 3).shape
        torch.Size([3, 2])
    """
    return value if len(value) == rows else value[:rows]


def relative_error(found: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over the variance of the target, or over a quarter of its squared mean if that is more.

    Examples:
        >>> relative_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]])).shape
        torch.Size([])
    """
    variance, mean = torch.var_mean(target)
    size = torch.maximum(variance, _SHARE_OF_MEAN * mean.square())
    return F.mse_loss(found, target) / size.clamp_min(_LEAST_VARIANCE)
