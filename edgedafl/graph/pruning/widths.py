"""How many channels every layer keeps: the budget is spent where a unit costs least and tells most.

An equal share of every layer's channels ignores that the last stage of a network often holds most of
its weights, and that a residual stream is read by every block. Here units are taken away one step at a
time, always from the group that loses least per byte or multiply-accumulate saved, which gives one
nested row of ever smaller networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edgedafl.graph.pruning.channels import ChannelMap
from edgedafl.graph.pruning.interpolation import Ranking

__all__ = ["Costs", "Widths", "narrowed", "width_path"]

_LEAST_SHARE = 0.25
"""No group loses more than three quarters of its units: what is left could not be read as the teacher's layer."""


@dataclass(frozen=True)
class Widths:
    """One place on the way down.

    Attributes:
        counts: Units kept of every group, in the order of `ChannelMap.groups`.
        parameters: Weights that are left.
        macs: Multiply-accumulates per image that are left.
        loss: Expected error of the logits, as a share of their variance; the sum over groups.
    """

    counts: tuple[int, ...]
    parameters: float
    macs: float
    loss: float


class Costs:
    """Weights and multiply-accumulates of a network as a function of the units that its groups keep.

    Args:
        model: The graph.
        channels: Its channels.
        shapes: Shape of every value for one image.

    Examples:
        >>> from edgedafl.graph.pruning import trace_channels
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,1,8,8] image) => (float[n,1,8,8] y)
        ...     <float[2,1,1,1] w = {1, 9}, float[1,2,1,1] v = {3, 4}> { a = Conv(image, w)  y = Conv(a, v) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> shapes = {"image": (1, 1, 8, 8), "a": (1, 2, 8, 8), "y": (1, 1, 8, 8)}
        >>> costs = Costs(model, trace_channels(model, shapes), shapes)
        >>> costs.of([2]), costs.of([1])  # weights and multiply-accumulates
        ((4.0, 256.0), (2.0, 128.0))
    """

    def __init__(self, model: onnx.ModelProto, channels: ChannelMap, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._group_of = {int(u): index for index, group in enumerate(channels.groups) for u in group}
        sides: dict[str, dict[int, tuple[int, dict[int, float]]]] = {}
        for slot in channels.slots:
            sides.setdefault(slot.initializer, {})[slot.axis] = self._side(slot.units, channels)
        self._of_group: dict[int, list[int]] = {}
        self._tensors: list[tuple[float, float, list[tuple[int, dict[int, float]]]]] = []
        positions = _positions(model, shapes)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims):
                own = sides.get(tensor.name, {})
                fixed = math.prod(side for axis, side in enumerate(tensor.dims) if axis not in own)
                for group in {g for _, places in own.values() for g in places}:
                    self._of_group.setdefault(group, []).append(len(self._tensors))
                self._tensors.append((float(fixed), positions.get(tensor.name, 0.0), list(own.values())))

    def _side(self, units: np.ndarray, channels: ChannelMap) -> tuple[int, dict[int, float]]:
        """Places that always stay, and places per unit of every group."""
        places: dict[int, float] = {}
        fixed = 0
        for unit in units.tolist():
            group = self._group_of.get(unit)
            if group is None:
                fixed += 1
            else:
                places[group] = places.get(group, 0.0) + 1
        return fixed, {group: count / len(channels.groups[group]) for group, count in places.items()}

    def of(self, counts: Sequence[int]) -> tuple[float, float]:
        """Weights, and multiply-accumulates per image."""
        return self._sum(range(len(self._tensors)), counts)

    def saved(self, counts: Sequence[int], group: int, count: int) -> tuple[float, float]:
        """What is saved of both where one group keeps fewer units.

        Args:
            counts: Units that all groups keep.
            group: The group.
            count: Units that it keeps then.
        """
        mine = self._of_group.get(group, ())
        tried = [*counts[:group], count, *counts[group + 1 :]]
        before, after = self._sum(mine, counts), self._sum(mine, tried)
        return before[0] - after[0], before[1] - after[1]

    def _sum(self, tensors: Iterable[int], counts: Sequence[int]) -> tuple[float, float]:
        parameters = macs = 0.0
        for index in tensors:
            fixed, positions, sides = self._tensors[index]
            size = fixed
            for stays, places in sides:
                size *= stays + sum(each * counts[group] for group, each in places.items())
            parameters += size
            macs += size * positions
        return parameters, macs


def _positions(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, float]:
    """How often every weight is multiplied per image, by initializer."""
    found = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            found[node.input[1]] = float(math.prod(shapes[node.output[0]][2:]))
        elif node.op_type in ("Gemm", "MatMul") and len(node.input) > 1:
            found[node.input[1]] = float(math.prod(shapes[node.output[0]][:-1]))
    return found


def narrowed(count: int, multiple: int = 1) -> list[int]:
    """Counts of units that a group may keep, from all of them downwards.

    Args:
        count: Units of the group.
        multiple: Counts that the target runs without padding; kept to in groups that are wide enough.

    Examples:
        >>> narrowed(16), narrowed(64, multiple=16)
        ([16, 12, 8, 4], [64, 48, 32, 16])
    """
    step = 8 if count >= 64 else 4 if count >= 16 else 2 if count >= 8 else 1
    step = math.lcm(step, multiple) if count >= 4 * multiple else step
    least = max(1, math.ceil(_LEAST_SHARE * count / step) * step)
    return [count, *range((count - 1) // step * step, least - 1, -step)]


def width_path(
    rankings: Sequence[Ranking],
    sensitivities: Sequence[float],
    costs: Costs,
    *,
    multiple: int = 1,
    price: Callable[[float, float], float] = lambda parameters, macs: parameters,
) -> list[Widths]:
    """Ever smaller networks, each with one step fewer units in one group than the one before.

    Args:
        rankings: Units of every group.
        sensitivities: Error of the logits, as a share of their variance, per unexplained share of a group.
        costs: Of the network.
        multiple: Counts of channels that the target likes.
        price: What is to be saved, of weights and multiply-accumulates.

    Examples:
        >>> import numpy as np
        >>> from edgedafl.graph.pruning import trace_channels
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,1,8,8] image) => (float[n,1,8,8] y)
        ...     <float[2,1,1,1] w = {1, 9}, float[1,2,1,1] v = {3, 4}> { a = Conv(image, w)  y = Conv(a, v) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> shapes = {"image": (1, 1, 8, 8), "a": (1, 2, 8, 8), "y": (1, 1, 8, 8)}
        >>> costs = Costs(model, trace_channels(model, shapes), shapes)
        >>> ranking = Ranking(np.array([1, 0]), np.array([1.0, 0.1, 0.0]))
        >>> [(found.counts, found.parameters) for found in width_path([ranking], [0.5], costs)]
        [((2,), 4.0), ((1,), 2.0)]
    """
    steps = [narrowed(len(ranking.units), multiple) for ranking in rankings]
    places = [0] * len(rankings)

    def loss(group: int, place: int) -> float:
        return sensitivities[group] * float(rankings[group].unexplained[steps[group][place]])

    counts = [own[0] for own in steps]
    parameters, macs = costs.of(counts)
    path = [Widths(tuple(counts), parameters, macs, 0.0)]
    while True:
        best: tuple[float, int, float, float] | None = None
        for group, own in enumerate(steps):
            if places[group] + 1 == len(own):
                continue
            less, fewer = costs.saved(counts, group, own[places[group] + 1])
            lost = loss(group, places[group] + 1) - loss(group, places[group])
            ratio = lost / max(price(less, fewer), 1e-9)
            if best is None or ratio < best[0]:
                best = ratio, group, less, fewer
        if best is None:
            return path
        _, group, less, fewer = best
        parameters, macs = parameters - less, macs - fewer
        places[group] += 1
        counts[group] = steps[group][places[group]]
        total = sum(loss(g, place) for g, place in enumerate(places))
        path.append(Widths(tuple(counts), parameters, macs, total))
