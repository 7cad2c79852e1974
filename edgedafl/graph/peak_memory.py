"""Working memory of a graph: the buffers that are held at the same time while it runs at batch 1."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from edgedafl.graph.cost import infer_types
from edgedafl.graph.edit import with_all_outputs
from edgedafl.graph.image_input import find_image_input
from edgedafl.graph.kernel_memory import scratch_bytes
from edgedafl.graph.runtime import open_session, optimized

__all__ = ["PeakMemory", "peak_memory"]

# The same bytes under another shape.
_ALIASES = {"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
# ONNX Runtime writes the result over the input, where nothing else reads it (measured; not so for Add and Mul).
_IN_PLACE = {"Clip", "Elu", "Exp", "HardSigmoid", "HardSwish", "LeakyRelu", "Neg", "Relu", "Sigmoid", "Softmax", "Tanh"}

_ORT = "onnxruntime"
_log = logging.getLogger(__name__)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class PeakMemory:
    """Where a graph needs most.

    Attributes:
        peak: Bytes of all that is held at the worst moment, image and scores included; weights are not.
        node: The node that runs at that moment.
        alive: Bytes of each buffer then, by the value that it was made for, largest first.
        scratch: Bytes that the node's kernel takes for itself.
    """

    peak: int
    node: str
    alive: Mapping[str, int]
    scratch: int = 0


def peak_memory(
    model: onnx.ModelProto, *, architecture: str = "x86_64", runtime: str = _ORT, fused: bool = True
) -> PeakMemory:
    """Bytes that a graph takes while it runs one image.

    For ONNX Runtime its plan is followed: what it fuses, which buffers it keeps for a later value of the same shape,
    and what its kernels for integers take for themselves. It is exact for static shapes; pages and the allocator's
    rounding come on top.

    Args:
        model: A graph with one image input; a free batch counts as 1.
        architecture: `aarch64` or `x86_64`: what is fused and which kernels there are.
        runtime: A target's. For others than ONNX Runtime only what is alive counts, after the same fusion.
        fused: Whether a runtime's fusion is applied first; activations inside of a fused layer do not exist.

    Raises:
        UnsupportedModelError: If the shapes contradict each other.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 17]>
        ... pool (float[1,4,8,8] image) => (float[1,4,1,1] y) { a = Abs(image)  y = GlobalAveragePool(a) }'''
        >>> peak_memory(onnx.parser.parse_model(text), fused=False).peak
        2048
    """
    types = infer_types(model, find_image_input(model))
    if not fused:
        return _Plan(model.graph, types).worst()
    own = runtime == _ORT
    graph = optimized(model, architecture, blocked=own and architecture == "x86_64")
    seen = _observed_types(graph)
    if seen is None:
        return _Plan(model.graph, types).worst()
    return _Plan(graph.graph, {**types, **seen}, architecture if own else None).worst()


def _observed_types(model: onnx.ModelProto) -> dict[str, tuple[int, Shape]] | None:
    """Type and shape of every value of an optimized graph; None if it does not run.

    The runtime's own operators are not in ONNX, whose inference does not know them: so it runs once.
    """
    wide = with_all_outputs(model)
    stored = {tensor.name for tensor in wide.graph.initializer}
    feeds = {}
    for given in (value for value in wide.graph.input if value.name not in stored):
        of = given.type.tensor_type
        kind = onnx.helper.tensor_dtype_to_np_dtype(of.elem_type)
        feeds[given.name] = np.zeros([max(1, side.dim_value) for side in of.shape.dim], kind)
    try:
        session = open_session(wide, threads=0, optimize=False)
        values = session.run(None, feeds)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        _log.debug("An optimized graph does not run: %s", error)
        return None
    names = [output.name for output in session.get_outputs()]
    return {
        name: (onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in zip(names, values, strict=True)
        if isinstance(value, np.ndarray)
    }


class _Plan:
    """Which buffer each value lies in, as ONNX Runtime plans it before it runs.

    A value lies in its input's buffer where the operator writes over it, else in a free buffer of the same shape, else
    in one of its own. A buffer is held from its first value's making to its last value's reading, also in between.

    Args:
        graph: In the order in which it runs.
        types: Element type and shape by value.
        architecture: Whose kernels ONNX Runtime has. None: values share no buffers, and kernels take nothing.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        types: Mapping[str, tuple[int, Shape]],
        architecture: str | None = None,
    ) -> None:
        stored = {tensor.name: tensor for tensor in graph.initializer}
        self._graph, self._architecture = graph, architecture
        self._types = {name: found for name, found in types.items() if name not in stored}
        self._shapes = {name: shape for name, (_, shape) in types.items()}
        self._shapes |= {name: tuple(tensor.dims) for name, tensor in stored.items()}
        self._buffer = {name: name for name in self._types}  # a buffer is called by its first value
        self._free: list[str] = []  # those freed last come first
        self._uses = self._counted()
        self._held: dict[str, tuple[int, int]] = {}
        self._place()

    def _counted(self) -> Counter[str]:
        """How often each value is read; the caller reads inputs and outputs, a node its own outputs."""
        graph = self._graph
        uses = Counter(name for node in graph.node for name in [*node.input, *node.output] if name)
        uses.update(value.name for value in [*graph.input, *graph.output])
        return uses

    def _place(self) -> None:
        last = {name: place for place, node in enumerate(self._graph.node) for name in node.input}
        last |= {value.name: len(self._graph.node) for value in self._graph.output}
        for value in self._graph.input:
            if value.name in self._types:
                # ONNX Runtime's images are the caller's, and stay.
                end = last.get(value.name, -1) if self._architecture is None else len(self._graph.node)
                self._held[value.name] = (-1, end)
        results = {value.name for value in self._graph.output}
        for place, node in enumerate(self._graph.node):
            for name in (name for name in node.output if name in self._types):
                taken = None if name in results and node.op_type not in _ALIASES else self._taken(node, name)
                if taken is not None:
                    self._buffer[name] = taken
                    self._uses[taken] += self._uses[name]
                first, end = self._held.get(self._buffer[name], (place, place))
                self._held[self._buffer[name]] = (first, max(end, last.get(name, place)))
            for name in [*node.input, *node.output]:
                self._release(name)

    def _taken(self, node: onnx.NodeProto, name: str) -> str | None:
        """The buffer that a value takes over, if any."""
        if node.op_type in _ALIASES and node.input[0] in self._types:
            return self._buffer[node.input[0]]
        if node.op_type in _IN_PLACE and node.input[0] in self._types:
            buffer = self._buffer[node.input[0]]
            if self._uses[buffer] == 1 and self._types[node.input[0]] == self._types[name]:
                return buffer
        if self._architecture is None:
            return None
        found = next((free for free in self._free if self._alike(free, name)), None)
        if found is not None:
            self._free.remove(found)
        return found

    def _alike(self, free: str, name: str) -> bool:
        """Whether both have elements of one size and the same shape."""
        (kind, shape), (other, wanted) = self._types[free], self._types[name]
        return bool(wanted) and shape == wanted and _itemsize(kind) == _itemsize(other)

    def _release(self, name: str) -> None:
        if name not in self._types:
            return
        buffer = self._buffer[name]
        self._uses[buffer] -= 1
        if not self._uses[buffer]:
            self._free.insert(0, buffer)

    def worst(self) -> PeakMemory:
        """The moment at which most is held."""
        sizes = {name: math.prod(shape) * _itemsize(kind) for name, (kind, shape) in self._types.items()}
        moments = [(-1, "", 0)]
        for place, node in enumerate(self._graph.node):
            own = 0 if self._architecture is None else scratch_bytes(node, self._shapes, self._architecture)
            moments.append((place, node.name or node.output[0], own))
        best = PeakMemory(0, "", {})
        for place, name, own in moments:
            alive = {b: sizes[b] for b, (first, last) in self._held.items() if first <= place <= last}
            total = sum(alive.values()) + own
            if total > best.peak:
                best = PeakMemory(total, name, dict(sorted(alive.items(), key=lambda entry: -entry[1])), own)
        return best


def _itemsize(kind: int) -> int:
    return 1 if kind == TensorProto.STRING else np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).itemsize
