"""Convolutions and matrix products as one thing: rows of numbers times a matrix, group by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from edgedafl.graph.edit import attribute
from edgedafl.graph.executor import OnnxModule

__all__ = ["Layer", "layer_of"]


@dataclass(frozen=True)
class Layer:
    """A layer whose weights are known, inside a network.

    Attributes:
        node: Its node.
        weight: Initializer of its weight.
        bias: Initializer of its bias, or None.
        shape: Of the weight.
        groups: Convolutions: how many groups; 1 for products.
        written: Axis of the weight that runs over what the layer writes.
        axis: Channel axis of what it writes.
    """

    node: onnx.NodeProto
    weight: str
    bias: str | None
    shape: tuple[int, ...]
    groups: int
    written: int
    axis: int

    @property
    def has_bias(self) -> bool:
        """Whether a constant can be learned."""
        return self.bias is not None

    @property
    def columns(self) -> int:
        """Numbers that one output is made of, without the constant."""
        if self.node.op_type == "Conv":
            _, inputs, height, width = self.shape
            return inputs * height * width
        return self.shape[1 - self.written]

    def read(self, module: OnnxModule) -> Tensor:
        """Its weights and bias, (groups, outputs per group, columns + 1)."""
        weight = module.initializer(self.weight).detach()
        flat = weight.reshape(len(weight), -1) if self.written == 0 else weight.T
        bias = flat.new_zeros(len(flat)) if self.bias is None else module.initializer(self.bias).detach()
        return torch.cat([flat, bias.reshape(-1, 1)], 1).reshape(self.groups, -1, self.columns + 1)

    def write(self, module: OnnxModule, value: Tensor) -> None:
        """Inverse of `read`."""
        flat = value.reshape(-1, self.columns + 1)
        weight = flat[:, :-1] if self.written == 0 else flat[:, :-1].T
        module.initializer(self.weight).data.copy_(weight.reshape(self.shape))
        if self.bias is not None:
            bias = module.initializer(self.bias)
            bias.data.copy_(flat[:, -1].reshape(bias.shape))

    def rows(
        self, given: Tensor, made: Sequence[Tensor], most: int, random: torch.Generator
    ) -> tuple[Tensor, list[Tensor]]:
        """What the layer reads and what is made of it at some positions of every image, images in their order.

        Args:
            given: The layer's input.
            made: Its output, or other values of that shape; at least one.
            most: Rows wanted; at least one per image.
            random: Chooses the positions.

        Returns:
            (groups, rows, columns + 1), the last of them 1, and (groups, rows, outputs per group) of each.
        """
        if self.node.op_type == "Conv":
            inputs, outputs = self._patches(given, made, max(1, most // len(given)), random)
        else:
            flat = [value.reshape(1, -1, value.shape[-1]) for value in (given, *made)]
            if flat[0].shape[1] > most:
                chosen = torch.randperm(flat[0].shape[1], generator=random)[:most].sort().values.to(given.device)
                flat = [value[:, chosen] for value in flat]
            inputs, *outputs = flat
        return torch.cat([inputs, inputs.new_ones(*inputs.shape[:2], 1)], 2), outputs

    def _patches(
        self, given: Tensor, made: Sequence[Tensor], count: int, random: torch.Generator
    ) -> tuple[Tensor, list[Tensor]]:
        height, width = made[0].shape[2:]
        chosen = torch.randperm(height * width, generator=random)[:count].to(given.device)
        outputs = [self._at(value, chosen).flatten(1, 2) for value in made]
        if self.shape[2:] == (1, 1) and set(attribute(self.node, "pads", [0])) == {0}:
            across, down = self._sides("strides")
            return self._at(given[:, :, ::across, ::down], chosen).flatten(1, 2), outputs
        kernel, strides, spread = self.shape[2:], self._sides("strides"), self._sides("dilations")
        top, left, bottom, right = self._pads(given, kernel, strides, spread)
        padded = F.pad(given, (left, right, top, bottom))
        taps = [torch.arange(k, device=given.device) * d for k, d in zip(kernel, spread, strict=True)]
        rows = (chosen // width * strides[0]).reshape(-1, 1, 1) + taps[0].reshape(1, -1, 1)
        columns = (chosen % width * strides[1]).reshape(-1, 1, 1) + taps[1].reshape(1, 1, -1)
        patches = padded[:, :, rows, columns]  # (N, C, positions, kh, kw)
        n, c, positions = patches.shape[:3]
        patches = patches.reshape(n, self.groups, c // self.groups, positions, -1).permute(1, 0, 3, 2, 4)
        return patches.reshape(self.groups, n * positions, -1), outputs

    def _at(self, value: Tensor, chosen: Tensor) -> Tensor:
        """A value's channels at some positions of every image, (groups, images, positions, channels per group)."""
        width = value.shape[3]
        found: Tensor = value.permute(0, 2, 3, 1)[:, chosen // width, chosen % width]  # (N, positions, C)
        count, positions, channels = found.shape
        return found.reshape(count, positions, self.groups, channels // self.groups).permute(2, 0, 1, 3)

    def _sides(self, name: str) -> tuple[int, int]:
        rows, columns = attribute(self.node, name, [1, 1])
        return int(rows), int(columns)

    def _pads(
        self, given: Tensor, kernel: tuple[int, ...], strides: tuple[int, int], spread: tuple[int, int]
    ) -> tuple[int, int, int, int]:
        """Top, left, bottom, right."""
        mode = attribute(self.node, "auto_pad", b"NOTSET")
        if mode == b"VALID":
            return 0, 0, 0, 0
        if mode == b"NOTSET":
            top, left, bottom, right = attribute(self.node, "pads", [0, 0, 0, 0])
            return top, left, bottom, right
        totals = [
            max((-(-side // stride) - 1) * stride + (k - 1) * d + 1 - side, 0)
            for side, stride, k, d in zip(given.shape[2:], strides, kernel, spread, strict=True)
        ]
        less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
        first, last = (less, more) if mode == b"SAME_UPPER" else (more, less)
        return first[0], first[1], last[0], last[1]


def layer_of(node: onnx.NodeProto, module: OnnxModule) -> Layer | None:
    """The layer of a node; None where it is not a layer, or its weights are computed.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,1,8,8] x) => (float[n,2,8,8] y)
        ...     <float[2,1,1,1] w = {1, 2}> { a = Relu(x)  y = Conv(a, w) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> module = OnnxModule(model)
        >>> [layer_of(node, module) is not None for node in model.graph.node]
        [False, True]
    """
    if node.op_type not in ("Conv", "Gemm", "MatMul") or not module.holds(node.input[1]):
        return None
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if bias is not None and not module.holds(bias):
        return None
    shape = tuple(module.initializer(node.input[1]).shape)
    if node.op_type == "Conv":
        return Layer(node, node.input[1], bias, shape, attribute(node, "group", 1), 0, 1) if len(shape) == 4 else None
    if len(shape) != 2 or attribute(node, "transA", 0):
        return None
    if attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0:
        return None
    return Layer(node, node.input[1], bias, shape, 1, 0 if attribute(node, "transB", 0) else 1, -1)
