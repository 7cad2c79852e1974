"""Working memory of a graph: the tensors that are alive at the same time while it runs at batch 1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from edgedafl.graph.cost import infer_types
from edgedafl.graph.image_input import find_image_input
from edgedafl.graph.runtime import optimized

__all__ = ["PeakMemory", "peak_memory"]

# The same bytes under another shape.
_ALIASES = {"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
# ONNX Runtime writes the result over the input, where nothing else reads it (measured; not so for Add and Mul).
_IN_PLACE = {"Clip", "Elu", "Exp", "HardSigmoid", "HardSwish", "LeakyRelu", "Neg", "Relu", "Sigmoid", "Softmax", "Tanh"}


@dataclass(frozen=True)
class PeakMemory:
    """Where a graph needs most.

    Attributes:
        peak: Bytes of all tensors alive at the worst moment, image and scores included; weights are not.
        node: The node that runs at that moment.
        alive: Bytes of each of these tensors, by name, largest first.
    """

    peak: int
    node: str
    alive: Mapping[str, int]


def peak_memory(model: onnx.ModelProto, *, architecture: str = "x86_64", fused: bool = True) -> PeakMemory:
    """Bytes that a graph's activations take, from the order in which its nodes run.

    Exact for graphs with static shapes. What a kernel takes for itself (im2col, packed blocks) comes on top.

    Args:
        model: A graph with one image input; a free batch counts as 1.
        architecture: `aarch64` or `x86_64`: how ONNX Runtime fuses integers for it.
        fused: Whether the runtime's own fusion is applied first; activations inside of a fused layer do not exist.

    Raises:
        UnsupportedModelError: If the shapes contradict each other.
    """
    sizes = {name: _bytes(*known) for name, known in infer_types(model, find_image_input(model)).items()}
    graph = optimized(model, architecture, blocked=False).graph if fused else model.graph
    stored = {t.name for t in graph.initializer}
    walk = _Walk(graph, {name: size for name, size in sizes.items() if name not in stored})
    worst = max(walk.moments(), key=lambda moment: sum(moment[1].values()))
    alive = dict(sorted(worst[1].items(), key=lambda entry: -entry[1]))
    return PeakMemory(sum(alive.values()), worst[0], alive)


def _bytes(kind: int, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).itemsize


class _Walk:
    """Follows a graph node by node and knows which buffers are held.

    Args:
        graph: In the order in which it runs.
        sizes: Bytes by value.
    """

    def __init__(self, graph: onnx.GraphProto, sizes: Mapping[str, int]) -> None:
        self._graph, self._sizes = graph, sizes
        self._last = {name: place for place, node in enumerate(graph.node) for name in node.input}
        self._last |= {value.name: len(graph.node) for value in graph.output}
        self._buffer = {name: name for name in sizes}  # values that share one are called by its first

    def moments(self) -> Iterator[tuple[str, dict[str, int]]]:
        """Each node's name with the buffers held while it runs."""
        held = {value.name: self._sizes[value.name] for value in self._graph.input if value.name in self._sizes}
        yield "", dict(held)
        for place, node in enumerate(self._graph.node):
            for name in node.output:
                size = self._sizes.get(name, 0)
                shared = self._shared(node, place, size)
                if shared is not None:
                    self._buffer[name] = shared
                elif size:
                    held[name] = size
            yield node.name or node.output[0], dict(held)
            needed = {self._buffer.get(n, n) for n, last in self._last.items() if last > place}
            held = {name: size for name, size in held.items() if name in needed}

    def _shared(self, node: onnx.NodeProto, place: int, size: int) -> str | None:
        """The buffer that an output takes over, if any."""
        if node.op_type in _ALIASES and node.input[0] in self._sizes:
            return self._buffer[node.input[0]]
        if node.op_type not in _IN_PLACE:
            return None
        own = {value.name for value in self._graph.input}
        for name in node.input:
            buffer = self._buffer.get(name)
            free = buffer is not None and buffer not in own and self._last.get(name) == place
            if free and self._sizes.get(name) == size and not self._read_later(buffer, name, place):
                return buffer
        return None

    def _read_later(self, buffer: str | None, name: str, place: int) -> bool:
        """Whether another value in the same buffer is still wanted."""
        return any(b == buffer and n != name and self._last.get(n, -1) > place for n, b in self._buffer.items())
