"""The teacher's own layers beside those that a pruned student has kept of them.

A pruned student's layers are its teacher's with fewer channels. What a layer reads can therefore be
compared channel by channel, without a map to be learned between the two (as hints of FitNets, arXiv
1412.6550, need one). It holds the student to what it has inherited while generated images move it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.moments import Movement
from edgedafl.graph.pruning import ChannelMap, are_kept
from edgedafl.graph.trainable import TrainableGraph
from edgedafl.students.features.loss import FeatureLoss, first_rows, relative_error

__all__ = ["PrunedFeatureLoss"]

_COMPARED = 10
"""Of deep networks so many layers are compared, the last one among them: the others follow, and a step is faster."""


class PrunedFeatureLoss(FeatureLoss):
    """Compares what the layers of a student read with what the teacher's read.

    Args:
        student: What is left of the teacher's network; it watches what its layers read.
        teacher: The teacher's network, which keeps what its layers read.
        channels: Its channels.
        removed: Units that the student has lost.
        sizes: Elements per image of every value of the network.
        movements: Of the teacher's values to moments that are promised of real data.
    """

    def __init__(
        self,
        student: TrainableGraph,
        teacher: OnnxModule,
        channels: ChannelMap,
        removed: Set[int],
        sizes: Mapping[str, int],
        movements: Mapping[str, Movement] = MappingProxyType({}),
    ) -> None:
        compared = channels.readers[::-1][:: max(1, -(-len(channels.readers) // _COMPARED))]
        elements = sum(sizes[name] for name in {reader.input for reader in compared})
        super().__init__(student, nn.Module(), teacher, max(1, elements), movements=movements)
        self._kept: dict[str, tuple[int, Tensor]] = {}
        for reader in compared:
            places = np.flatnonzero(are_kept(reader.weight.units, removed))
            self._kept[reader.input] = reader.axis, torch.from_numpy(places)

    def to(self, device: torch.device | str) -> Self:
        """Move to a device."""
        self._kept = {name: (axis, places.to(device)) for name, (axis, places) in self._kept.items()}
        return super().to(device)

    def distance(self, target_features: Mapping[str, Tensor], student_features: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error of the student's layers over the variance of the teacher's, mean over layers."""
        terms = []
        for name, (axis, places) in self._kept.items():
            target = target_features[name].index_select(axis, places)
            # A value may have more rows than images: positions counted as rows.
            found = first_rows(student_features[name], len(target))
            terms.append(relative_error(found, target))
        return torch.stack(terms).mean()
