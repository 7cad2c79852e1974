"""The state of following channels through a graph: units, ties, and what is cut with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import numpy_helper

from edgedafl.graph.pruning.channels import ChannelMap, Padding, Reader, WeightAxis
from edgedafl.graph.ties import Ties

__all__ = ["Axis", "Tracer"]


@dataclass(frozen=True)
class Axis:
    """The channel axis of a value, and the unit of each place on it."""

    axis: int
    units: np.ndarray


class Tracer:
    """What the rules of operators work on.

    Args:
        model: The graph; its constants are initializers.
        shapes: Shape of every value for one image.
        whole: Values whose reshape takes a last axis apart of which the last part is followed, not the one
            before it: there queries, keys and values come apart, and not yet heads.

    Attributes:
        shapes: Of values and initializers.
        values: Channel axes of the values that are followed.
        producers: Nodes by what they write.
        uses: How many nodes read each value.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]>
        ...     g (float[1,4,8,8] x) => (float[1,4,8,8] y) { y = Relu(x) }'''
        >>> t = Tracer(onnx.parser.parse_model(text), {"x": (1, 4, 8, 8), "y": (1, 4, 8, 8)})
        >>> t.put("x", 1, t.fresh(4)), t.keep(t.producers["y"]), t.values["y"].units.tolist()
        (True, True, [0, 1, 2, 3])
    """

    def __init__(
        self, model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], whole: Set[str] = frozenset()
    ) -> None:
        self.shapes = dict(shapes) | {t.name: tuple(t.dims) for t in model.graph.initializer}
        self.values: dict[str, Axis] = {}
        self._stored = {t.name: t for t in model.graph.initializer}
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.uses = Counter(name for node in model.graph.node for name in node.input)
        self._ties = Ties()
        self._writers: list[set[int]] = []
        self._fixed: set[int] = set()
        self._slots: list[WeightAxis] = []
        self._sizes: list[WeightAxis] = []
        self._paddings: list[Padding] = []
        self._depthwise: list[tuple[int, np.ndarray]] = []
        self._readers: list[Reader] = []
        self._whole = whole
        self._apart: dict[str, np.ndarray] = {}

    def stores(self, *names: str) -> bool:
        """Whether all these are initializers."""
        return all(name in self._stored for name in names)

    def constant(self, node: onnx.NodeProto, place: int) -> np.ndarray | None:
        """The constant that a node reads at a place, or None."""
        if place >= len(node.input) or node.input[place] not in self._stored:
            return None
        return numpy_helper.to_array(self._stored[node.input[place]])

    # Units.

    def fresh(self, count: int, writer: int | None = None) -> np.ndarray:
        """New units, written by a node; those that no layer writes are never cut on their own."""
        self._writers += [set() if writer is None else {writer} for _ in range(count)]
        return self._ties.fresh(count)

    def merge(self, a: np.ndarray, b: np.ndarray) -> None:
        """Make units one, place by place."""
        self._ties.merge(a, b)

    def fix(self, names: Iterable[str]) -> None:
        """Keep all units of these values."""
        for name in names:
            if name in self.values:
                self._fixed.update(self.values[name].units.tolist())

    def fixed(self, count: int) -> np.ndarray:
        """New units that stay."""
        units = self.fresh(count)
        self._fixed.update(units.tolist())
        return units

    # What a rule finds; all of these answer True: the operator is understood.

    def put(self, name: str, axis: int, units: np.ndarray) -> bool:
        """Follow a value."""
        self.values[name] = Axis(axis, units)
        return True

    def keep(self, node: onnx.NodeProto) -> bool:
        """The output has the channels of the first input."""
        given = self.values.get(node.input[0])
        return given is None or self.put(node.output[0], given.axis, given.units)

    def read(self, node: onnx.NodeProto, axis: int, written: int, bias: str | None) -> None:
        """A layer mixes the channels of its first input along an axis of its weight."""
        given = self.values.get(node.input[0])
        if given is not None:
            slot = WeightAxis(node.input[1], axis, given.units)
            self._slots.append(slot)
            self._readers.append(Reader(node.input[0], given.axis, slot, written, bias))

    def write(self, index: int, node: onnx.NodeProto, axis: int, written: int, bias: str | None) -> bool:
        """A layer writes channels along an axis of its weight, `axis` in its output."""
        weight = node.input[1]
        units = self.fresh(self.shapes[weight][written], index)
        self._slots.append(WeightAxis(weight, written, units))
        if bias is not None:
            self._slots.append(WeightAxis(bias, len(self.shapes[bias]) - 1, units))
        return self.put(node.output[0], axis, units)

    def add_coupled(self, names: Iterable[str], axis: int, units: np.ndarray) -> None:
        """Constants that hold one entry per channel along an axis."""
        self._slots += [WeightAxis(name, axis, units) for name in names]

    def add_shape_entry(self, name: str, entry: int, units: np.ndarray) -> None:
        """An entry of a shape constant counts units."""
        self._sizes.append(WeightAxis(name, entry, units))

    def pad(self, name: str, axis: int, before: np.ndarray, behind: np.ndarray) -> None:
        """A constant of pads adds channels."""
        self._paddings.append(Padding(name, axis, before, behind))

    def add_depthwise(self, index: int, units: np.ndarray) -> None:
        """A convolution has as many groups as these units."""
        self._depthwise.append((index, units))

    def follows_last(self, name: str, units: np.ndarray) -> bool:
        """Whether of a last axis that is taken apart into this value the last part is followed."""
        self._apart[name] = units
        return name in self._whole

    def stuck(self) -> frozenset[str]:
        """Values made of a last axis that is taken apart, where the part that was followed cannot be cut."""
        stay = {self._ties.root(unit) for unit in self._fixed}
        return frozenset(
            name for name, units in self._apart.items() if stay.issuperset(self._ties.roots(units).tolist())
        )

    # The result.

    def result(self) -> ChannelMap:
        """What was found, every unit named by the one that stands for its ties."""
        return ChannelMap(
            tuple(self._settled(slot) for slot in self._slots),
            tuple(self._settled(size) for size in self._sizes),
            tuple(
                replace(p, before=self._ties.roots(p.before), behind=self._ties.roots(p.behind)) for p in self._paddings
            ),
            tuple((index, self._ties.roots(units)) for index, units in self._depthwise),
            tuple(replace(reader, weight=self._settled(reader.weight)) for reader in self._readers),
            self._groups(),
        )

    def _settled(self, slot: WeightAxis) -> WeightAxis:
        return replace(slot, units=self._ties.roots(slot.units))

    def _groups(self) -> tuple[np.ndarray, ...]:
        stay = {self._ties.root(unit) for unit in self._fixed}
        writers: dict[int, set[int]] = {}
        for unit, nodes in enumerate(self._writers):
            writers.setdefault(self._ties.root(unit), set()).update(nodes)
        groups: dict[tuple[int, ...], list[int]] = {}
        for unit, nodes in writers.items():
            if unit not in stay and nodes:
                groups.setdefault(tuple(sorted(nodes)), []).append(unit)
        return tuple(np.array(sorted(units)) for units in groups.values())
