"""A student that keeps its feature maps while it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node, symbolic_trace
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata

from edgedafl.graph.bottlenecks import Bottleneck, Step, bottlenecks

__all__ = ["FeatureExtractor", "module_bottlenecks"]

_WEIGHTED = (nn.Conv2d, nn.Linear)


def module_bottlenecks(module: nn.Module, input_shape: tuple[int, int, int]) -> tuple[GraphModule, list[Bottleneck]]:
    """A module's operations, as torch.fx traces them, and its waypoints that are maps of channels.

    Raises:
        ValueError: If its operations depend on what it is given.

    Examples:
        >>> module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 2))
        >>> [found.channels for found in module_bottlenecks(module, (3, 8, 8))[1]]
        [8, 4]
    """
    try:
        traced = symbolic_trace(module)
        with torch.no_grad():
            ShapeProp(traced).propagate(torch.zeros(2, *input_shape))
    except Exception as error:  # a user's module may raise anything while it is traced
        raise ValueError(f"{type(module).__name__} cannot be traced: {error}") from error
    nodes = {node.name: node for node in traced.graph.nodes}
    start = next(node.name for node in nodes.values() if node.op == "placeholder")
    steps = [_step(node, traced) for node in nodes.values()]
    return traced, bottlenecks(steps, start, {name: _shape(node) for name, node in nodes.items()})


def _step(node: Node, traced: GraphModule) -> Step:
    return Step([read.name for read in node.all_input_nodes], [node.name], _weighted(node, traced))


def _weighted(node: Node, traced: GraphModule) -> bool:
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), _WEIGHTED)
    return node.target in (nn.functional.conv2d, nn.functional.linear)


def _shape(node: Node) -> tuple[int, ...]:
    found: Any = node.meta.get("tensor_meta")
    return tuple(found.shape) if isinstance(found, TensorMetadata) else ()


class FeatureExtractor(nn.Module):
    """Runs a student and keeps some of its values. The weights are the student's own.

    Args:
        traced: The student, see `module_bottlenecks`.
        names: Values to keep.

    Examples:
        >>> import torch
        >>> module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 2))
        >>> traced, found = module_bottlenecks(module, (3, 8, 8))
        >>> extractor = FeatureExtractor(traced, [found[0].name])
        >>> extractor(torch.zeros(1, 3, 8, 8)).shape
        torch.Size([1, 2])
    """

    def __init__(self, traced: GraphModule, names: Sequence[str]) -> None:
        super().__init__()
        nodes = {node.name: node for node in traced.graph.nodes}
        (end,) = (node for node in traced.graph.nodes if node.op == "output")
        end.args = ((end.args[0], *(nodes[name] for name in names)),)
        traced.recompile()
        self.traced = traced
        self._names = tuple(names)
        self._seen: dict[str, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N,C,H,W)."""
        logits: Tensor
        logits, *values = self.traced(images)
        self._seen = dict(zip(self._names, values, strict=True))
        return logits

    def take_features(self) -> dict[str, Tensor]:
        """The kept values of the last call, once."""
        seen, self._seen = self._seen, {}
        return seen
