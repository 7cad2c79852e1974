"""The teacher's feature maps as hints for a student of another architecture.

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

from edgedafl.graph.batch import value_shapes
from edgedafl.graph.bottlenecks import Bottleneck, graph_bottlenecks
from edgedafl.graph.canonicalize import LOGITS
from edgedafl.graph.executor import OnnxModule
from edgedafl.students.features.extractor import FeatureExtractor, module_bottlenecks
from edgedafl.students.features.loss import FeatureLoss, first_rows, relative_error

__all__ = ["HintLoss", "Pair", "pairs_of"]

_LEAST = 1e-8


@dataclass(frozen=True)
class Pair:
    """Two feature maps that should say the same.

    Attributes:
        teacher: The teacher's.
        student: The student's.
    """

    teacher: Bottleneck
    student: Bottleneck

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


def pairs_of(teacher: Sequence[Bottleneck], student: Sequence[Bottleneck]) -> list[Pair]:
    """Pair the waypoints of equal size in their order, and the last of both networks in any case.

    Examples:
        >>> teacher = [Bottleneck("a", 64, (16, 16)), Bottleneck("b", 128, (8, 8))]
        >>> student = [Bottleneck("c", 16, (16, 16)), Bottleneck("d", 32, (8, 8))]
        >>> [(pair.teacher.name, pair.student.name) for pair in pairs_of(teacher, student)]
        [('a', 'c'), ('b', 'd')]
    """
    found = []
    for size in dict.fromkeys(point.size for point in teacher):
        theirs = [point for point in teacher if point.size == size]
        ours = [point for point in student if point.size == size]
        count = min(len(theirs), len(ours))
        for index in range(1, count + 1):
            found.append(Pair(theirs[index * len(theirs) // count - 1], ours[index * len(ours) // count - 1]))
    last = Pair(teacher[-1], student[-1])
    return found if last in found else [*found, last]


class HintLoss(FeatureLoss):
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
        traced, ours = module_bottlenecks(module, input_shape)
        theirs = graph_bottlenecks(graph, value_shapes(graph, input_shape))
        if not ours or not theirs:
            raise ValueError("there is no feature map that all passes through")
        self.pairs = pairs_of(theirs, ours)
        extractor = FeatureExtractor(traced, sorted({pair.student.name for pair in self.pairs}))
        learned = nn.ModuleList(_map(p.student.channels, p.teacher.channels) for p in self.pairs)
        teacher = OnnxModule(graph, keep={pair.teacher.name for pair in self.pairs})
        elements = sum(p.teacher.channels * p.teacher.size[0] * p.teacher.size[1] for p in self.pairs)
        super().__init__(extractor, learned, teacher, 2 * elements)  # twice: the student's are mapped to as many

    def distance(self, target_features: Mapping[str, Tensor], student_features: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error of the mapped feature maps over the variance of the teacher's, mean over pairs."""
        rows = len(target_features[LOGITS])
        terms = []
        for pair, learned in zip(self.pairs, self.learned.children(), strict=True):
            target = _sized(target_features[pair.teacher.name], pair.size)
            given = _sized(first_rows(student_features[pair.student.name], rows), pair.size)
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
