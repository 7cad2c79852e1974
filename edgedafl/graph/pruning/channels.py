"""Which channels of a graph belong together: what structured pruning must cut at once.

Every channel that a layer writes is a *unit*. A unit is followed through the graph: activations and
pooling keep it, additions tie two units into one, a concatenation lines units up, flattening repeats
each of them once per pixel. Whatever an operator is not known to keep apart is *fixed*: it stays.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np

__all__ = ["ChannelMap", "Padding", "Reader", "WeightAxis", "are_kept"]


@dataclass(frozen=True)
class WeightAxis:
    """One axis of an initializer, with the unit of each of its places.

    For shape constants the axis is the entry that holds the count of the units.

    Attributes:
        initializer: Its name.
        axis: The axis, or the entry.
        units: Unit per place (n,).
    """

    initializer: str
    axis: int
    units: np.ndarray


@dataclass(frozen=True)
class Padding:
    """Channels of zeros before and behind others, as in residual networks without projections.

    Attributes:
        initializer: The constant of pads.
        axis: Channel axis.
        before: Units of the zeros before.
        behind: Units of the zeros behind.
    """

    initializer: str
    axis: int
    before: np.ndarray
    behind: np.ndarray


@dataclass(frozen=True)
class Reader:
    """A layer that mixes channels: a convolution or a matrix product.

    Attributes:
        input: The value it reads.
        axis: Channel axis of that value.
        weight: Its weight along the axis that runs over what it reads.
        written: Axis of the weight that runs over what it writes.
        bias: Initializer of its bias (a vector), or None.
    """

    input: str
    axis: int
    weight: WeightAxis
    written: int
    bias: str | None


@dataclass(frozen=True)
class ChannelMap:
    """All units of a graph.

    Attributes:
        slots: Axes of weights that are cut with their units.
        sizes: Entries of shape constants that count units.
        paddings: Padding of channels.
        depthwise: Depthwise convolutions by place in the graph, with their units.
        readers: Layers that mix units.
        groups: Units that may be cut, in groups that the same layers write.
    """

    slots: tuple[WeightAxis, ...]
    sizes: tuple[WeightAxis, ...]
    paddings: tuple[Padding, ...]
    depthwise: tuple[tuple[int, np.ndarray], ...]
    readers: tuple[Reader, ...]
    groups: tuple[np.ndarray, ...]

    @property
    def values_read(self) -> tuple[str, ...]:
        """Names of the values that mixing layers read; they stay when channels are cut."""
        return tuple(dict.fromkeys(reader.input for reader in self.readers))


def are_kept(units: np.ndarray, removed: Set[int]) -> np.ndarray:
    """Whether each of some units stays, as booleans.

    Examples:
        >>> are_kept(np.array([4, 4, 7]), {7})
        array([ True,  True, False])
    """
    return np.array([unit not in removed for unit in units.tolist()], bool)
