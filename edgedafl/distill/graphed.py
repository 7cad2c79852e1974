"""CUDA graphs: one launch for all kernels of a network, where launching them takes longer than running them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from edgedafl.graph.trainable import TrainableGraph
from edgedafl.students.watched import WatchedModule

__all__ = ["GraphedFunction", "GraphedModule", "graphed_student"]

_log = logging.getLogger(__name__)
_WARM_UP = 3  # libraries choose their kernels and take their memory in the first calls
_Answer = TypeVar("_Answer")


class GraphedFunction(Generic[_Answer]):
    """A function of images without gradients, replayed. Every answer lies where the last one lay.

    Args:
        function: Tensors or mappings of tensors for images (N,C,H,W). What it does beside that on
            the host happens while it is recorded, never afterwards.
    """

    def __init__(self, function: Callable[[Tensor], _Answer]) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        self._failed = False
        self._images = torch.zeros(0)
        self._answer: _Answer

    def __call__(self, images: Tensor) -> _Answer:
        """The answer to images of the first call's shape from the graph, to others as ever."""
        if self._graph is None and images.is_cuda and not self._failed:
            self._record(images)
        if self._graph is None or images.shape != self._images.shape:
            return self._function(images)
        self._images.copy_(images)
        self._graph.replay()
        return self._answer

    def _record(self, images: Tensor) -> None:
        self._images = images.clone()
        with torch.autocast("cuda", torch.bfloat16, enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False):
            try:
                _warm_up(lambda: self._function(self._images))
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    self._answer = self._function(self._images)
            except RuntimeError as error:  # a network that waits for the device in between cannot be recorded
                _log.info("No CUDA graph of the teacher: %s", error)
                self._failed = True
                return
        self._graph = graph


class GraphedModule(nn.Module):
    """A module whose forward and backward passes in training are replayed.

    Args:
        inner: The module: images (N,C,H,W) in, one tensor or a tuple of them out.
        images: Of the shape and layout that will be trained on.
        low_precision: Whether it runs in bfloat16.
    """

    def __init__(self, inner: nn.Module, images: Tensor, *, low_precision: bool) -> None:
        super().__init__()
        self.inner = inner
        self._shape = images.shape
        before = {name: value.clone() for name, value in inner.state_dict().items()}
        with torch.autocast("cuda", torch.bfloat16, enabled=low_precision, cache_enabled=False):
            self._replayed: Any = torch.cuda.make_graphed_callables(_Shell(inner), (images,))
        inner.load_state_dict(before)  # recording has counted images for the BatchNorms

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """From the graph where training and shape are those recorded, else as ever."""
        recorded = self.training and images.shape == self._shape
        answer: Tensor | tuple[Tensor, ...] = self._replayed(images) if recorded else self.inner(images)
        return answer


def graphed_student(student: nn.Module, images: Tensor, *, low_precision: bool) -> nn.Module:
    """A student as it is called in training, recorded where it can be.

    Args:
        student: On its device, in training mode.
        images: Of the shape and layout of its batches.
        low_precision: Whether it runs in bfloat16.
    """
    if isinstance(student, TrainableGraph):
        return student  # says what its layers made on the host
    try:
        if not isinstance(student, WatchedModule):
            return GraphedModule(student, images, low_precision=low_precision)
        student.traced = GraphedModule(student.traced, images, low_precision=low_precision)
    except RuntimeError as error:  # waits for the device in between
        _log.info("No CUDA graph of the student: %s", error)
    return student


class _Shell(nn.Module):
    """`make_graphed_callables` replaces a module's forward; this one's, and not the student's."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.inner(images)  # type: ignore[no-any-return]


def _warm_up(call: Callable[[], object]) -> None:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(stream)
