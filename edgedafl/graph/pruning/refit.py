"""Least squares layer by layer: what is left of a network answers as the whole one did.

After a cut, every layer reads something else than it was made for, and errors add up along the network.
Here the layers are fitted one after the other, in graph order, *on what the cut network itself makes of
the images so far*, to what the whole network makes of them (He et al. 2017, arXiv 1707.06168, eq. 4; the
ridge towards the weights at hand as in GRAIL, arXiv 2602.23795). Both networks run side by side, node by
node, so the cost is one pass of each, and one small linear system per layer.

Where a BatchNorm has promised the moments of a value (`graph.moments`), both networks' values are moved
and scaled to them before the next layer reads them: then every layer is fitted on inputs with the mean
and the deviation of real data, whatever the images are. The weights themselves stay those of the
unmoved network.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType

import onnx
import torch
from torch import Tensor

from edgedafl.graph.canonicalize import IMAGE
from edgedafl.graph.edit import readers_of
from edgedafl.graph.executor import OnnxModule, Walk
from edgedafl.graph.moments import Movement
from edgedafl.graph.pruning.channels import ChannelMap
from edgedafl.graph.pruning.layers import Layer, layer_of
from edgedafl.graph.pruning.movements import channels_left, written_axis
from edgedafl.graph.pruning.saturation import Bounds, activation_bounds

__all__ = ["refit"]

_ROWS = 40_000
"""Rows of one layer's system: some fifty for every column of a common 3x3 layer."""
_NUMBERS = 40_000_000
"""Most numbers of the rows of one layer: 160 MB."""
_PRODUCTS = 2e11
"""Most multiply-accumulates of one layer's products: four seconds on two cores."""
_MOST_COLUMNS = 5_000
"""Layers that read more keep their weights: solving alone would take minutes."""
_RIDGE = 1e-2
_HELD_BACK = 5  # every fifth image judges
_TURNS = 4
"""Solutions of a layer before a ReLU or a Clip: each begins with what the last one makes beyond its bounds."""
_NOTHING: Mapping[str, Movement] = MappingProxyType({})


@torch.no_grad()
def refit(
    teacher: OnnxModule,
    student: OnnxModule,
    graph: onnx.ModelProto,
    channels: ChannelMap,
    removed: Set[int],
    images: Tensor,
    *,
    movements: Mapping[str, Movement] = _NOTHING,
    ridge: float = _RIDGE,
) -> int:
    """Fit every convolution and matrix product of a cut network, in place.

    A layer keeps its weights where the new ones are not nearer on images held back. Layers are fitted to what the
    whole network makes *before* the activation, but behind a ReLU or a Clip errors hardly count where both networks
    are beyond its bounds; one that ends a residual branch also makes up for the other branch.

    Args:
        teacher: The whole network.
        student: The cut one: the same nodes in the same order with fewer channels.
        graph: The cut network's graph.
        channels: Of the whole network.
        removed: Units that are cut.
        images: (N,C,H,W) in model space; what one layer makes of all of them is in memory.
        movements: Of the whole network's values to their promised moments, see `movements`.
        ridge: Pull towards the weights at hand, as a share of the inputs' mean square.

    Returns:
        How many layers were changed.

    Examples:
        >>> from edgedafl.graph.pruning import cut, trace_channels
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,1,8,8] image) => (float[n,2,8,8] y)
        ...     <float[2,1,1,1] w = {1, 2}, float[2,2,1,1] v = {2, 3, 4, 5}> { a = Conv(image, w) y = Conv(a, v) }'''
        >>> model, images = onnx.parser.parse_model(text), torch.rand(32, 1, 8, 8)
        >>> channels = trace_channels(model, {"image": (1, 1, 8, 8), "a": (1, 2, 8, 8), "y": (1, 2, 8, 8)})
        >>> smaller = cut(model, channels, {0})
        >>> refit(OnnxModule(model), OnnxModule(smaller), smaller, channels, {0}, images)  # layers changed
        1
    """
    kept = channels_left(channels, removed)
    sums, bounds = _sums(graph), activation_bounds(graph)
    random = torch.Generator().manual_seed(0)
    changed = 0
    walks = zip(graph.graph.node, teacher.walk({IMAGE: images}), student.walk({IMAGE: images}), strict=True)
    for node, whole, cut in walks:
        whole.run()
        written, layer = node.output[0], layer_of(node, student)
        moved, axis = movements.get(written), written_axis(node, student)
        left = None if axis is None else kept.get(axis)
        own = None if moved is None else moved.of(left)
        if layer is not None:
            goal = _goal_of(whole, cut, sums.get(written), bounds, own, left, layer.axis)
            changed += _fit(student, layer, cut.values[node.input[0]], goal, ridge, random)
        cut.run()
        if moved is not None and own is not None:
            whole.values[written] = moved(whole.values[written])
            cut.values[written] = own(cut.values[written])
    return changed


@dataclass(frozen=True)
class _Goal:
    """What a layer is fitted to.

    Attributes:
        wanted: For the layer to make, of the shape that it writes.
        added: What the next layer's output is added to before the activation; None where nothing is.
        bounds: Of that activation, for the layer's output and what is added; None where errors count alike.
    """

    wanted: Tensor
    added: Tensor | None
    bounds: Bounds | None

    def rows(
        self, layer: Layer, given: Tensor, most: int, random: torch.Generator
    ) -> tuple[Tensor, Tensor, Bounds | None]:
        """What the layer reads, what is wanted of it, and its bounds, at some positions; see `Layer.rows`."""
        made = [self.wanted] if self.added is None else [self.wanted, self.added]
        inputs, [wanted, *added] = layer.rows(given, made, most, random)
        if self.bounds is None:
            return inputs, wanted, None
        low, high = (
            bound.reshape(layer.groups, 1, -1) if isinstance(bound, Tensor) else bound
            for bound in (self.bounds.low, self.bounds.high)
        )
        return inputs, wanted, Bounds(low - sum(added), high - sum(added))


def _goal_of(
    whole: Walk,
    cut: Walk,
    summed: tuple[str, str] | None,
    bounds: Mapping[str, Bounds],
    movement: Movement | None,
    left: Tensor | None,
    axis: int,
) -> _Goal:
    """A layer that ends a residual branch also makes up for what the other branch has lost."""
    written = whole.node.output[0]
    wanted = _left(whole.values[written], left, axis)
    scale, shift = (1.0, 0.0) if movement is None else (movement.scale, movement.shift)
    added = None
    if summed is None:
        active = bounds.get(written)
    else:
        other, total = summed
        if _shape(whole, other) != whole.values[written].shape or other not in cut.values:
            return _Goal(wanted, None, None)
        added = cut.values[other] / scale
        wanted = wanted + _left(whole.values[other], left, axis) / scale - added
        active = bounds.get(total)
    if active is None:
        return _Goal(wanted, None, None)
    return _Goal(wanted, added, Bounds((active.low - shift) / scale, (active.high - shift) / scale))


def _shape(walk: Walk, name: str) -> tuple[int, ...] | None:
    value = walk.values.get(name)
    return value.shape if isinstance(value, Tensor) else None


def _left(value: Tensor, places: Tensor | None, axis: int) -> Tensor:
    return value if places is None else value.index_select(axis, places.to(value.device))


def _sums(graph: onnx.ModelProto) -> dict[str, tuple[str, str]]:
    """What is added to a value that goes nowhere else, and the sum, by the value."""
    stored = {tensor.name for tensor in graph.graph.initializer}
    found = {}
    for name, behind in readers_of(graph).items():
        if len(behind) == 1 and behind[0].op_type == "Add":
            others = [n for n in behind[0].input if n != name and n not in stored]
            if len(others) == 1:
                found[name] = others[0], behind[0].output[0]
    return found


def _fit(student: OnnxModule, layer: Layer, given: Tensor, goal: _Goal, ridge: float, random: torch.Generator) -> int:
    """Fit one layer; returns whether its weights changed."""
    groups, columns = layer.groups, layer.columns + 1
    if columns > _MOST_COLUMNS or not len(given):
        return 0
    most = int(min(_ROWS, _NUMBERS / (groups * columns), _PRODUCTS / (groups * columns**2)))
    inputs, wanted, bounds = goal.rows(layer, given, most, random)  # (G, R, columns), (G, R, outputs)
    count = inputs.shape[1]
    judges = torch.arange(count) * len(given) // count % _HELD_BACK == 0
    learned = inputs[:, ~judges]
    gram = (learned.transpose(1, 2) @ learned).double()
    pull = ridge * gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    gram += pull.reshape(-1, 1, 1) * torch.eye(columns, dtype=gram.dtype, device=gram.device)
    factors = torch.linalg.lu_factor(gram)
    weight = layer.read(student)  # (G, outputs, columns)
    before = inputs @ weight.transpose(1, 2)
    step, made, aim = torch.zeros_like(weight.transpose(1, 2)), before, wanted
    for _ in range(1 if bounds is None else _TURNS):
        rest = (aim - before)[:, ~judges]
        step = torch.linalg.lu_solve(*factors, (learned.transpose(1, 2) @ rest).double()).float()
        if not layer.has_bias:
            step[:, -1] = 0
        made = before + inputs @ step
        aim = _aim(wanted, made, bounds)
    missed = (_aim(wanted, before, bounds) - before)[:, judges].square().sum()
    misses = (aim - made)[:, judges].square().sum()
    if not bool(misses < missed):
        return 0
    layer.write(student, weight + step.transpose(1, 2))
    return 1


def _aim(wanted: Tensor, made: Tensor, bounds: Bounds | None) -> Tensor:
    return wanted if bounds is None else bounds.goal(wanted, made)
