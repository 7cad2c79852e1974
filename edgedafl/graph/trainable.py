"""A graph whose weights are trained, and that is an ONNX model again afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor, nn

from edgedafl.graph.canonicalize import IMAGE, LOGITS
from edgedafl.graph.edit import copy_of
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.moments import Movement

__all__ = ["TrainableGraph", "weight_names"]

# Inputs of these operators that are weights; statistics, scales and bounds are not.
_WEIGHTS = {
    "Add": (0, 1), "BatchNormalization": (1, 2), "Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2),
    "InstanceNormalization": (1, 2), "LayerNormalization": (1, 2), "MatMul": (0, 1), "Mul": (0, 1), "PRelu": (1,),
}  # fmt: skip


def weight_names(model: onnx.ModelProto) -> list[str]:
    """Values that are weights of a layer where they are stored; statistics of BatchNorms are not.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,2] x) => (float[n,2] y)
        ...     <float[2,2] w = {1, 0, 0, 1}, float[2] b = {1, 2}> { a = Relu(x)  y = Gemm(a, w, b) }'''
        >>> weight_names(onnx.parser.parse_model(text))
        ['w', 'b']
    """
    places = ((node, place) for node in model.graph.node for place in _WEIGHTS.get(node.op_type, ()))
    return [node.input[place] for node, place in places if place < len(node.input)]


class TrainableGraph(nn.Module):
    """Runs a graph of one image input and one output of logits with trainable weights.

    BatchNorms that could not be folded keep their statistics. While training, values may be moved to moments
    that are promised of real data; the weights stay those of the network that moves nothing.

    Args:
        model: As `portable` makes it.
        watch: Values that are kept while training, see `take_features`.

    Examples:
        >>> import torch
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,2] image) => (float[n,2] logits)
        ...     <float[2,2] w = {1, 0, 0, 1}, float[2] b = {1, 2}> { logits = Gemm(image, w, b) }'''
        >>> module = TrainableGraph(onnx.parser.parse_model(text))
        >>> module(torch.zeros(1, 2)).tolist(), sum(weight.numel() for weight in module.parameters())
        ([[1.0, 2.0]], 6)
    """

    def __init__(self, model: onnx.ModelProto, watch: Iterable[str] = ()) -> None:
        super().__init__()
        self._model = model
        self.graph = OnnxModule(model, keep=watch)
        self._seen: dict[str, Tensor] = {}
        self._moved: tuple[str, ...] = ()
        self._trained = tuple(self.graph.make_trainable(weight_names(model)))

    def convolutions(self) -> Iterator[tuple[tuple[int, ...], int, int]]:
        """Kernel, largest stride and input channels of every convolution."""
        for node in self._model.graph.node:
            if node.op_type == "Conv" and node.input[1] in self._trained:
                shape = tuple(self.graph.initializer(node.input[1]).shape)
                strides = next((list(a.ints) for a in node.attribute if a.name == "strides"), [1])
                group = next((a.i for a in node.attribute if a.name == "group"), 1)
                yield shape[2:], max(strides), shape[1] * group

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N,C,H,W)."""
        movements = self._movements() if self.training else {}
        values = self.graph.run({IMAGE: images}, movements)
        logits = values.pop(LOGITS)
        self._seen = values if self.training else {}
        return logits

    def move(self, movements: Mapping[str, Movement]) -> None:
        """Move values while training, by name."""
        for index in range(len(self._moved)):
            delattr(self, f"scale{index}")
            delattr(self, f"shift{index}")
        self._moved = tuple(movements)
        for index, movement in enumerate(movements.values()):
            self.register_buffer(f"scale{index}", movement.scale, persistent=False)
            self.register_buffer(f"shift{index}", movement.shift, persistent=False)

    def _movements(self) -> dict[str, Movement]:
        return {
            name: Movement(getattr(self, f"scale{index}"), getattr(self, f"shift{index}"))
            for index, name in enumerate(self._moved)
        }

    def take_features(self) -> dict[str, Tensor]:
        """The extractor values of the last call in training, once."""
        seen, self._seen = self._seen, {}
        return seen

    def to_onnx(self) -> onnx.ModelProto:
        """The graph with its present weights."""
        model = copy_of(self._model)
        for tensor in model.graph.initializer:
            if tensor.name in self._trained:
                value = self.graph.initializer(tensor.name).detach().cpu().numpy()
                tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, np.float32, order="C"), tensor.name))
        return model
