"""CUDA graphs: one launch for all kernels of a training step.

Launching the kernels of a ResNet one by one takes a host two to three times as long as a large GPU
takes to run them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["CudaGraphStep"]

_log = logging.getLogger(__name__)
_WARM_UP = 3  # libraries choose their kernels and take their memory in the first calls

Step = Callable[..., tuple[Tensor, ...]]


class CudaGraphStep:
    """A step that leaves gradients behind, recorded at its first call and replayed afterwards.

    A step that waits for the device, or whatever else cannot be recorded, runs as ever; so do
    calls with other shapes. What a replayed step returns lies where the last one's lay.

    Args:
        step: Of tensors to tensors. Whatever it does on the host happens while it is recorded,
            and not again.
        module: What it trains.
    """

    def __init__(self, step: Step, module: nn.Module) -> None:
        self._step, self._module = step, module
        self._graph: torch.cuda.CUDAGraph | None = None
        self._is_new = True
        self._inputs: tuple[Tensor, ...] = ()
        self._outputs: tuple[Tensor, ...] = ()
        self._gradients: list[Tensor | None] = []

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The step's answer; the module's parameters have their gradients."""
        if self._is_new:
            self._is_new = False
            self._record(inputs)
        if self._graph is None or [x.shape for x in inputs] != [x.shape for x in self._inputs]:
            return self._step(*inputs)
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value)
        self._graph.replay()
        for parameter, gradient in zip(self._module.parameters(), self._gradients, strict=True):
            parameter.grad = gradient
        return self._outputs

    def _record(self, inputs: Sequence[Tensor]) -> None:
        self._inputs = tuple(value.clone() for value in inputs)
        before = {name: value.clone() for name, value in self._module.state_dict().items()}
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        try:
            self._warm_up(stream)
            self._module.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph, stream=stream):
                self._outputs = self._step(*self._inputs)
        except RuntimeError as error:
            _log.info("A step is not recorded: %s", error)
            _forget_recording()
        else:
            self._graph = graph
            self._gradients = [parameter.grad for parameter in self._module.parameters()]
        self._module.load_state_dict(before)  # BatchNorms have counted these images

    def _warm_up(self, stream: torch.cuda.Stream) -> None:
        """Raises RuntimeError where the step waits for the device: it would spoil a recording."""
        mode = torch.cuda.get_sync_debug_mode()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                self._step(*self._inputs)  # places constants, for which it may wait
                torch.cuda.set_sync_debug_mode("error")
                for _ in range(_WARM_UP):
                    self._step(*self._inputs)
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            torch.cuda.current_stream().wait_stream(stream)


def _forget_recording() -> None:
    """After a failed recording random numbers are drawn as if it still went on; one that succeeds ends that."""
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        torch.zeros(1, device="cuda")
