"""What a teacher is to the rest of the code: a specification and a few capabilities."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from edgedafl.errors import UnsupportedModelError
from edgedafl.graph.moments import PromisedMoments
from edgedafl.runs import TeacherSpec

if TYPE_CHECKING:
    import onnx

__all__ = [
    "BatchNormStatistics",
    "QueryBudgetError",
    "Teacher",
    "TeacherOutput",
    "TeacherSpec",
    "channels_last",
    "device_of",
    "images_at_once",
]

_ELEMENTS_AT_ONCE = 128 * 3 * 64 * 64  # elements of the images; what a network's layers make of them is in memory


def images_at_once(shape: Sequence[int]) -> int:
    """How many images (C,H,W) of that shape a network is asked about in one pass on a CPU.

    Examples:
        >>> images_at_once((3, 64, 64)), images_at_once((3, 2048, 2048))
        (128, 1)
    """
    return max(1, _ELEMENTS_AT_ONCE // math.prod(shape))


@dataclass(frozen=True)
class BatchNormStatistics:
    """Batch statistics seen by one BatchNorm layer beside its stored ones, each of shape (C,)."""

    mean: Tensor
    var: Tensor
    running_mean: Tensor
    running_var: Tensor


@dataclass(frozen=True)
class TeacherOutput:
    """One differentiable answer.

    Attributes:
        logits: (N, K).
        features: (N, F) penultimate activations, or None.
        batch_norm: One entry per BatchNorm layer, when asked for.
    """

    logits: Tensor
    features: Tensor | None = None
    batch_norm: tuple[BatchNormStatistics, ...] = ()

    def in_float32(self) -> TeacherOutput:
        """The same where the network ran in bfloat16: losses and the pool want all digits."""
        features = None if self.features is None else self.features.float()
        return TeacherOutput(self.logits.float(), features, self.batch_norm)


class Teacher(abc.ABC):
    """A frozen classifier. Images are float tensors (N,C,H,W) in model space.

    Args:
        spec: What is known of it.
        max_queries: Most rows it may ever see; None for no limit.

    Examples:
        >>> from edgedafl.teachers import load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx")
        >>> teacher.scores(torch.zeros(2, *teacher.spec.input_shape)).shape
        torch.Size([2, 10])
    """

    def __init__(self, spec: TeacherSpec, *, max_queries: int | None = None) -> None:
        self.spec = spec
        self.max_queries = max_queries
        self.queries = 0

    @abc.abstractmethod
    def _answer(self, images: Tensor, *, batch_norm: bool) -> TeacherOutput:
        """Compute one answer."""

    @property
    def device(self) -> torch.device:
        """Where it wants its images; those that only answer take them from anywhere."""
        return torch.device("cpu")

    @property
    def remaining(self) -> int | None:
        """Rows that may still be asked about; None without a limit."""
        return None if self.max_queries is None else max(0, self.max_queries - self.queries)

    def _check_budget(self, rows: int) -> None:
        if self.max_queries is not None and self.queries + rows > self.max_queries:
            raise QueryBudgetError(self.queries, rows, self.max_queries)

    def _count(self, rows: int) -> None:
        self._check_budget(rows)
        self.queries += rows

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know again; nothing for most teachers."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  (most have nothing)
        """Inverse of `state_dict`."""

    def __call__(self, images: Tensor, *, batch_norm: bool = False) -> TeacherOutput:
        """Answer with logits and features; gradients flow to `images`."""
        self._count(len(images))
        return self._answer(images, batch_norm=batch_norm).in_float32()

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """Logits (N, K) without a gradient."""
        self._count(len(images))
        parts = [self._answer(part, batch_norm=False).logits.float() for part in self._pieces(images)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _pieces(self, images: Tensor) -> Sequence[Tensor]:
        """As many images at once as leave a CPU's memory alone; whole batches where the interface has them fixed."""
        if images.is_cuda:
            return (images,)
        block = self.spec.batch or 1
        rows = images_at_once(images.shape[1:])
        pieces: Sequence[Tensor] = images.split(-(-rows // block) * block)
        return pieces

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (N, F).

        Raises:
            UnsupportedModelError: If this teacher does not give them.
        """
        features = self(images).features
        if features is None:
            raise UnsupportedModelError(f"{self.spec.source} has no readable penultimate features.")
        return features

    def batch_norm_statistics(self, images: Tensor) -> tuple[BatchNormStatistics, ...]:
        """Statistics of every BatchNorm layer on `images`; empty where none are left."""
        return self(images, batch_norm=True).batch_norm

    def network(self) -> onnx.ModelProto:
        """Its own layers as a graph with (N,C,H,W) images in and logits out; see `graph.portable`.

        Raises:
            UnsupportedModelError: If they cannot be read.
        """
        raise UnsupportedModelError(f"The layers of {self.spec.source} cannot be read: it only answers.")

    def promised_moments(self, network: onnx.ModelProto) -> dict[str, PromisedMoments]:
        """What its BatchNorms say of real data, by value of its `network`; empty where there are none."""
        return {}

    def to(self, device: torch.device | str) -> Teacher:
        """Move to a device; a teacher outside this process stays where it is."""
        return self


class QueryBudgetError(UnsupportedModelError):
    """The teacher would see more rows than `max_queries` allows."""

    def __init__(self, seen: int, asked: int, limit: int) -> None:
        super().__init__(f"The teacher has answered {seen} rows; {asked} more would exceed {limit}.")


_Module = TypeVar("_Module", bound=nn.Module)


def channels_last(module: _Module) -> _Module:
    """Lay out 4-d weights channels-last: convolutions run 1.1 to 1.8 times as fast on CPUs.

    Examples:
        >>> module = channels_last(nn.Conv2d(3, 8, 3))
        >>> module.weight.is_contiguous(memory_format=torch.channels_last)
        True
    """
    moved: _Module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights lie.

    Examples:
        >>> device_of(nn.Linear(2, 2))
        device(type='cpu')
    """
    return next(iter(module.state_dict().values()), torch.zeros(0)).device
