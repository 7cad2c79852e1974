"""The teacher's layers beside the student's: a lesson for every layer, not only for the last.

A pruned student's layers are its teacher's with fewer channels. What a layer reads can therefore be
compared channel by channel, without a map to be learned between the two (as hints of FitNets, arXiv
1412.6550, need one). It holds the student to what it has inherited while generated images move it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.portable import IMAGE
from edgedafl.graph.pruning import ChannelMap, are_kept

__all__ = ["Mirror"]

# Most bytes of the teacher's layers on one batch; of larger ones only the first images are compared.
_MEMORY = 2 << 30
_LEAST_VARIANCE = 1e-8


class Mirror:
    """Compares what the layers of a student read with what the teacher's read.

    Args:
        teacher: The teacher's network, which keeps what its layers read.
        channels: Its channels.
        removed: Units that the student has lost.
        sizes: Elements per image of every value of the network.
    """

    def __init__(self, teacher: OnnxModule, channels: ChannelMap, removed: Set[int], sizes: Mapping[str, int]) -> None:
        self._teacher = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._kept: dict[str, tuple[int, Tensor]] = {}
        for reader in channels.readers:
            places = np.flatnonzero(are_kept(reader.weight.units, removed))
            self._kept[reader.input] = reader.axis, torch.from_numpy(places)
        self._rows = max(1, _MEMORY // (4 * sum(sizes[name] for name in channels.values_read)))

    def to(self, device: torch.device | str) -> Mirror:
        """Move to a device."""
        self._teacher.to(device)
        self._kept = {name: (axis, places.to(device)) for name, (axis, places) in self._kept.items()}
        return self

    def distance(self, images: Tensor, seen: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error of the student's layers over the variance of the teacher's, mean over layers.

        Args:
            images: (N,C,H,W) in model space.
            seen: What the student's layers read on them, by name.
        """
        rows = min(self._rows, len(images))
        with torch.no_grad():
            values = self._teacher.run({IMAGE: images[:rows]})
        terms = []
        for name, (axis, places) in self._kept.items():
            wanted = values[name].index_select(axis, places)
            # A value may have more rows than images: positions counted as rows.
            found = seen[name][: len(wanted)]
            terms.append(F.mse_loss(found, wanted) / wanted.var().clamp_min(_LEAST_VARIANCE))
        return torch.stack(terms).mean()
