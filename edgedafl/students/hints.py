"""The teacher's feature maps as hints for a student of another make.

FitNets (arXiv 1412.6550): a map from the student's channels to the teacher's is learned beside the
student, and thrown away afterwards. Generated images differ from real ones most in what the last
layer makes of them; the layers before it see edges, textures and parts, which any image has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.portable import LOGITS, value_shapes
from edgedafl.graph.waypoints import Waypoint, graph_waypoints
from edgedafl.students.comparison import LayerComparison, first_rows, relative_error
from edgedafl.students.watched import WatchedModule, module_waypoints

__all__ = ["Hints", "Pair", "pairs_of"]

_LEAST = 1e-8


@dataclass(frozen=True)
class Pair:
    """Two feature maps that should say the same.

    Attributes:
        teacher: The teacher's.
        student: The student's.
    """

    teacher: Waypoint
    student: Waypoint

    @property
    def size(self) -> tuple[int, int]:
        """The smaller of both sizes, to which both are averaged."""
        rows = min(self.teacher.size[0], self.student.size[0])
        return rows, min(self.teacher.size[1], self.student.size[1])

    @property
    def slope(self) -> float:
        """By what the map from the student's channels is multiplied, at most 1.

        How steep the distance is in the map's weights grows with the channels it reads over those it
        makes: at the rate that suits equal numbers, a map from many channels to few would diverge.
        """
        return float(min(1.0, (self.teacher.channels / self.student.channels) ** 0.5))


def pairs_of(teacher: Sequence[Waypoint], student: Sequence[Waypoint]) -> list[Pair]:
    """Pair the waypoints of equal size in their order, and the last of both networks in any case."""
    found = []
    for size in dict.fromkeys(point.size for point in teacher):
        theirs = [point for point in teacher if point.size == size]
        ours = [point for point in student if point.size == size]
        count = min(len(theirs), len(ours))
        for index in range(1, count + 1):
            found.append(Pair(theirs[index * len(theirs) // count - 1], ours[index * len(ours) // count - 1]))
    last = Pair(teacher[-1], student[-1])
    return found if last in found else [*found, last]


class Hints(LayerComparison):
    """Compares a student's feature maps with its teacher's.

    Args:
        graph: The teacher's network, see `graph.portable`.
        module: The student.
        input_shape: (C, H, W).

    Raises:
        ValueError: If the student cannot be traced, or either network has no feature map that all
            passes through.
    """

    def __init__(self, graph: onnx.ModelProto, module: nn.Module, input_shape: tuple[int, int, int]) -> None:
        traced, ours = module_waypoints(module, input_shape)
        theirs = graph_waypoints(graph, value_shapes(graph, input_shape))
        if not ours or not theirs:
            raise ValueError("there is no feature map that all passes through")
        self.pairs = pairs_of(theirs, ours)
        watched = WatchedModule(traced, sorted({pair.student.name for pair in self.pairs}))
        learned = nn.ModuleList(_map(p.student.channels, p.teacher.channels) for p in self.pairs)
        teacher = OnnxModule(graph, keep={pair.teacher.name for pair in self.pairs})
        elements = sum(p.teacher.channels * p.teacher.size[0] * p.teacher.size[1] for p in self.pairs)
        super().__init__(watched, learned, teacher, 2 * elements)  # twice: the student's are mapped to as many

    def distance(self, wanted: Mapping[str, Tensor], seen: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error of the mapped feature maps over the variance of the teacher's, mean over pairs."""
        rows = len(wanted[LOGITS])
        terms = []
        for pair, learned in zip(self.pairs, self.learned.children(), strict=True):
            target = _sized(wanted[pair.teacher.name], pair.size)
            given = _sized(first_rows(seen[pair.student.name], rows), pair.size)
            assert isinstance(learned, nn.Conv2d) and learned.bias is not None
            # The map is from and to unit scale: its rate is made for the student's weights, not for
            # scales of layers. What is scaled is the map, which is small, and not what it reads.
            scale = _scale(target)
            slope = pair.slope * scale / _scale(given)
            found = F.conv2d(given, learned.weight * slope, learned.bias * scale)
            terms.append(relative_error(found.float(), target.float()))
        return torch.stack(terms).mean()


def _sized(value: Tensor, size: tuple[int, int]) -> Tensor:
    return value if value.shape[2:] == size else F.adaptive_avg_pool2d(value, size)


def _scale(value: Tensor) -> Tensor:
    """Root mean square, no less than a small number."""
    norm = torch.linalg.vector_norm(value.detach(), dtype=torch.float32)
    scale: Tensor = norm / value.numel() ** 0.5
    return scale.clamp_min(_LEAST)


def _map(inputs: int, outputs: int) -> nn.Conv2d:
    """From a student's channels to a teacher's. It begins at zero, and moves the student once it has learned."""
    layer = nn.Conv2d(inputs, outputs, 1)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
