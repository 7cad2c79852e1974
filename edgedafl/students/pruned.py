"""Students that begin as the teacher itself: its own layers with fewer channels.

A network of another make has to learn from generated images what the teacher knows of real ones. A
pruned teacher keeps most of that knowledge: its channels are the teacher's, and those cut are
predicted from those kept. On generated images it only has to mend what the cut broke.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor

from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.portable import IMAGE, LOGITS, value_shapes
from edgedafl.graph.pruning import ChannelMap, Moments, absorb, cut, observe, rank, trace_channels
from edgedafl.graph.trainable import TrainableGraph
from edgedafl.module_cost import module_macs
from edgedafl.students.base import PRUNED, Student, StudentSpec
from edgedafl.students.comparison import relative_error
from edgedafl.students.mirror import Mirror

__all__ = ["Pruner", "pruned_width"]


def pruned_width(name: str) -> float | None:
    """The width of `pruned:0.5`; None for students of another make.

    Raises:
        UsageError: If the width is not a number above 0 and at most 1.
    """
    architecture, _, text = name.partition(":")
    if architecture != PRUNED:
        return None
    try:
        width = float(text or 0.5)
    except ValueError:
        width = 0.0
    if not 0 < width <= 1:
        raise UsageError(
            f"The width {text!r} of a pruned student is no share of the teacher's channels.",
            "Write it like pruned:0.5; pruned:1 keeps all.",
        )
    return width


@dataclass(frozen=True)
class Pruner:
    """Cuts students of any width out of one teacher.

    Attributes:
        graph: The teacher's network, see `graph.portable`.
        module: The same to be run; it keeps what its layers read.
        shapes: Of its values, for one image.
        channels: Its channels.
        moments: What each of its layers reads on images.
        ranks: Channels of each group, those first that are best kept.
        unseen: Other images, by which students are judged before they are trained.
        num_classes: K.
    """

    graph: onnx.ModelProto
    module: OnnxModule
    shapes: dict[str, tuple[int, ...]]
    channels: ChannelMap
    moments: tuple[Moments, ...]
    ranks: tuple[np.ndarray, ...]
    unseen: Tensor
    num_classes: int

    @classmethod
    def of(
        cls, graph: onnx.ModelProto, images: Tensor, unseen: Tensor, num_classes: int, *, batch: int = 100
    ) -> Pruner:
        """Look at a teacher's network.

        Args:
            graph: The network, see `graph.portable`.
            images: (N,C,H,W) in model space; only how channels go together is learned from them.
            unseen: Some more.
            num_classes: K.
            batch: Images at a time: all that the layers read is held in memory.

        Raises:
            UnsupportedModelError: If no channel of it can be cut.
        """
        _, c, h, w = images.shape
        shapes = value_shapes(graph, (c, h, w))
        channels = trace_channels(graph, shapes)
        if not channels.groups:
            raise UnsupportedModelError(
                "No channel of the teacher can be cut on its own.", "Choose a student of another make."
            )
        module = OnnxModule(graph, keep=channels.values_read)
        moments = tuple(observe(module, channels, images.split(batch)))
        return cls(graph, module, shapes, channels, moments, rank(graph, channels, moments), unseen, num_classes)

    def student(self, width: float) -> Student:
        """The teacher with a share of its channels.

        Args:
            width: Share of every layer's channels; both weights and multiply-accumulates fall with
                its square.
        """
        removed = frozenset(unit for units in self.ranks for unit in units[_rounded(len(units), width) :].tolist())
        smaller = cut(absorb(self.graph, self.channels, self.moments, removed), self.channels, removed)
        module = TrainableGraph(smaller, watch=self.channels.values_read)
        parameters = sum(p.numel() for p in module.parameters())
        _, c, h, w = self.unseen.shape
        macs = module_macs(module, (c, h, w))
        spec = StudentSpec(f"{PRUNED}:{width:g}", PRUNED, width, (c, h, w), self.num_classes, parameters, macs)
        sizes = {key: math.prod(shape) for key, shape in self.shapes.items()}
        return Student(module.train(), spec, Mirror(module, self.module, self.channels, removed, sizes))

    @torch.no_grad()
    def unexplained(self, student: Student) -> float:
        """Error of an untrained student's logits on unseen images, as a share of the teacher's variance."""
        wanted = self.module.run({IMAGE: self.unseen})[LOGITS]
        return float(relative_error(student.module.eval()(self.unseen), wanted))


def _rounded(count: int, width: float) -> int:
    """Channels to keep: multiples of 8, 4 or 2 where there are many, as integer kernels like them."""
    step = 8 if count >= 64 else 4 if count >= 16 else 2 if count >= 8 else 1
    return min(count, max(step, int(count * width / step + 0.5) * step))
