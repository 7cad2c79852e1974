"""Students that begin as the teacher itself: its own layers with fewer channels.

A network of another architecture has to learn from generated images what the teacher knows of real ones. A
pruned teacher keeps most of that knowledge: its channels are the teacher's, and those cut are
predicted from those kept. On generated images it only has to mend what the cut broke.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property

import onnx
import torch
from torch import Tensor

from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.graph.batch import value_shapes
from edgedafl.graph.canonicalize import IMAGE, LOGITS
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.moments import Movement, PromisedMoments
from edgedafl.graph.pruning import (
    ChannelMap,
    Costs,
    Moments,
    Ranking,
    Widths,
    collect_moments,
    cut,
    find_movements,
    fold_into_weights,
    movements_of_cut,
    narrowed,
    rank_channels,
    refit,
    trace_channels,
    width_path,
)
from edgedafl.graph.trainable import TrainableGraph
from edgedafl.module_cost import module_macs
from edgedafl.students.base import KEPT, PRUNED, Student, StudentSpec
from edgedafl.students.features.loss import relative_error
from edgedafl.students.features.pruned import PrunedFeatureLoss

__all__ = ["Pruner", "images_at_once", "pruned_width"]

# A layer's input, its output and the rows of its system, of both networks.
_VALUES_HELD = 5
_MEMORY = 1 << 30


def pruned_width(name: str) -> float | None:
    """The number of `pruned:0.5` or `kept:0.5`; None for students of another architecture.

    Raises:
        UsageError: If it is not a number above 0 and at most 1.

    Examples:
        >>> pruned_width("kept:0.5"), pruned_width("resnet8")
        (0.5, None)
    """
    architecture, _, text = name.partition(":")
    if architecture not in (PRUNED, KEPT):
        return None
    try:
        width = float(text or 0.5)
    except ValueError:
        width = 0.0
    if not 0 < width <= 1:
        what = "channels" if architecture == PRUNED else "weights"
        raise UsageError(
            f"{text!r} in --student {name} is not a share of the teacher's {what}.",
            f"Write it like {architecture}:0.5; {architecture}:1 keeps all.",
        )
    return width


def images_at_once(graph: onnx.ModelProto, input_shape: tuple[int, int, int], memory: int = _MEMORY) -> int:
    """Images whose values fit in memory while one layer of a network is fitted on all of them.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,3,32,32] image) => (float[n,3,32,32] logits)
        ...     { logits = Relu(image) }'''
        >>> images_at_once(onnx.parser.parse_model(text), (3, 32, 32), memory=2**20) > 10
        True
    """
    shapes = value_shapes(graph, input_shape)
    largest = max(math.prod(shape) for shape in shapes.values())
    return max(8, memory // (4 * _VALUES_HELD * largest))


@dataclass(frozen=True)
class Pruner:
    """Cuts students of any size out of one teacher and refits what is left.

    Attributes:
        graph: The teacher's network, see `graph.portable`.
        module: The same to be run; it keeps what its layers read.
        shapes: Of its values, for one image.
        channels: Its channels.
        moments: What each of its layers reads on images.
        rankings: Units of each group, those first that are best kept.
        images: Synthetic images in model space, by which layers are fitted.
        unseen: Other images, by which groups are compared.
        num_classes: K.
        movements: Of the teacher's values on its images to moments that are promised of real data.
        multiple: Counts of channels that the target likes.
    """

    graph: onnx.ModelProto
    module: OnnxModule
    shapes: dict[str, tuple[int, ...]]
    channels: ChannelMap
    moments: tuple[Moments, ...]
    rankings: tuple[Ranking, ...]
    images: Tensor
    unseen: Tensor
    num_classes: int
    movements: Mapping[str, Movement] = field(default_factory=dict)
    multiple: int = 1

    @classmethod
    def of(
        cls,
        graph: onnx.ModelProto,
        images: Tensor,
        unseen: Tensor,
        num_classes: int,
        *,
        promised: Mapping[str, PromisedMoments] | None = None,
        multiple: int = 1,
    ) -> Pruner:
        """Look at a teacher's network.

        Args:
            graph: The network, see `graph.portable`.
            images: (N,C,H,W) in model space.
            unseen: Some more, no more than `images_at_once`.
            num_classes: K.
            promised: Moments of values on real data.
            multiple: Counts of channels that the target likes.

        Raises:
            UnsupportedModelError: If no channel of it can be cut.
        """
        _, c, h, w = images.shape
        shapes = value_shapes(graph, (c, h, w))
        channels = trace_channels(graph, shapes)
        if not channels.groups:
            raise UnsupportedModelError(
                "No channel of the teacher can be cut on its own.", "Choose a student of another architecture."
            )
        module = OnnxModule(graph, keep=channels.values_read).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.contiguous(memory_format=torch.channels_last)
        most = images_at_once(graph, (c, h, w))
        movements = find_movements(module, images[:most], promised or {})
        found = tuple(collect_moments(module, channels, images.split(most), movements))
        images = images[:most].clone()  # of a view, all images would stay in memory
        rankings = rank_channels(graph, channels, found)
        return cls(graph, module, shapes, channels, found, rankings, images, unseen, num_classes, movements, multiple)

    @classmethod
    def uncut(cls, graph: onnx.ModelProto, images: Tensor, num_classes: int) -> Pruner:
        """For a network that is not cut: its one student is the network itself.

        Args:
            graph: The network, see `graph.portable`.
            images: (N,C,H,W) in model space.
            num_classes: K.
        """
        _, c, h, w = images.shape
        module = OnnxModule(graph).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        nothing = ChannelMap((), (), (), (), (), ())
        return cls(graph, module, value_shapes(graph, (c, h, w)), nothing, (), (), images, images[:1], num_classes)

    @property
    def cuts(self) -> bool:
        """Whether there is anything that can be cut."""
        return bool(self.rankings)

    def student(self, name: str, *, fitted: bool = True) -> Student:
        """A student by name.

        Args:
            name: `pruned:0.5` keeps that share of every layer's channels; weights and multiply-accumulates
                fall with its square. `kept:0.5` keeps that share of all weights, and chooses the widths.
            fitted: Whether its layers are refitted; without that it is as it was cut.

        Raises:
            UsageError: If the number is not a share.
        """
        share = pruned_width(name)
        assert share is not None
        if name.startswith(PRUNED):
            counts: Sequence[int] = [_rounded(len(r.units), share) for r in self.rankings]
        else:
            counts = self.widths(share).counts
        return self.cut_to(counts, f"{name.partition(':')[0]}:{share:g}", share, fitted=fitted)

    def cut_to(self, counts: Sequence[int], name: str, share: float, *, fitted: bool = True) -> Student:
        """A student of given widths.

        Args:
            counts: Units kept of every group.
            name: Of the student.
            share: Of its name.
            fitted: Whether its layers are refitted.
        """
        removed = self._removed(counts)
        smaller = cut(fold_into_weights(self.graph, self.channels, self.moments, removed), self.channels, removed)
        module = TrainableGraph(smaller, watch=self.channels.values_read)
        if removed and fitted:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            refit(self.module, module.graph, smaller, self.channels, removed, self.images, movements=self.movements)
        module.move(movements_of_cut(self.movements, module.graph, smaller, self.channels, removed))
        parameters = sum(p.numel() for p in module.parameters())
        _, c, h, w = self.unseen.shape
        macs = module_macs(module, (c, h, w))
        spec = StudentSpec(name, PRUNED, share, (c, h, w), self.num_classes, parameters, macs)
        sizes = {key: math.prod(shape) for key, shape in self.shapes.items()}
        return Student(
            module.train(), spec, PrunedFeatureLoss(module, self.module, self.channels, removed, sizes, self.movements)
        )

    def widths(self, share: float) -> Widths:
        """The first place on the way down that keeps at most a share of the weights; the last where none does."""
        most = share * self.path[0].parameters
        return next((place for place in self.path if place.parameters <= most * (1 + 1e-9)), self.path[-1])

    @cached_property
    def path(self) -> list[Widths]:
        """Ever smaller networks, widths chosen by what a weight costs."""
        costs = Costs(self.graph, self.channels, self.shapes)
        return width_path(self.rankings, self._sensitivities(), costs, multiple=self.multiple)

    @torch.no_grad()
    def _sensitivities(self) -> list[float]:
        """Error of the logits per unexplained share of a group, each group cut alone."""
        wanted = self.module.run({IMAGE: self.unseen})[LOGITS]
        found = []
        for ranking in self.rankings:
            steps = narrowed(len(ranking.units), self.multiple)
            middle = steps[len(steps) // 2]
            removed = frozenset(ranking.units[middle:].tolist())
            if not removed:
                found.append(1.0)
                continue
            alone = OnnxModule(
                cut(fold_into_weights(self.graph, self.channels, self.moments, removed), self.channels, removed)
            )
            alone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            error = float(relative_error(alone.run({IMAGE: self.unseen})[LOGITS], wanted))
            found.append(error / max(float(ranking.unexplained[middle]), 1e-4))
        return found

    def _removed(self, counts: Sequence[int]) -> Set[int]:
        pairs = zip(self.rankings, counts, strict=True)
        return frozenset(unit for ranking, count in pairs for unit in ranking.units[count:].tolist())

    @torch.no_grad()
    def unexplained(self, student: Student) -> float:
        """Error of an untrained student's logits on unseen images, as a share of the teacher's variance."""
        wanted = self.module.run({IMAGE: self.unseen})[LOGITS]
        return float(relative_error(student.module.eval()(self.unseen), wanted))


def _rounded(count: int, width: float) -> int:
    """Channels to keep: multiples of 8, 4 or 2 where there are many, as integer kernels like them."""
    step = 8 if count >= 64 else 4 if count >= 16 else 2 if count >= 8 else 1
    return min(count, max(step, int(count * width / step + 0.5) * step))
