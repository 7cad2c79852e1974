"""What one integer of a weight stands for, channel by channel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgedafl.graph.narrow import next_bfloat16

__all__ = ["LARGEST", "on_grid", "weight_steps"]

LARGEST = 127
"""Of eight bits."""
_SHRINKS = np.linspace(0.3, 1.0, 29)
_NORM = 2.4
"""Exponent of the error that a step is chosen by, as in GPTQ's code."""


def on_grid(weight: Tensor, step: Tensor, largest: int) -> Tensor:
    """Weights rounded to the nearest of the integers -largest to largest.

    Examples:
        >>> on_grid(torch.tensor([0.26, 9.0]), torch.tensor(0.5), 7)
        tensor([0.5000, 3.5000])
    """
    return (weight / step).round().clamp(-largest, largest) * step


def weight_steps(weight: Tensor, largest: int) -> Tensor:
    """Steps (G, outputs, 1) of weights (G, outputs, columns), numbers of bfloat16: half the bytes, and hardly coarser.

    Eight bits cover the largest weight of a channel. Of fewer integers none is spent on a channel's rare extremes:
    the step is the one that costs least.

    Args:
        weight: See `Layer.read`, without its last column.
        largest: Integers span -largest to largest.

    Examples:
        >>> weight = torch.cat([torch.linspace(-1, 1, 99), torch.tensor([2.5])]).reshape(1, 1, -1)
        >>> float(weight_steps(weight, 127)) > 2.5 / 127, float(weight_steps(weight, 7)) < 2.5 / 7
        (True, True)
    """
    widest = (weight.abs().amax(2, keepdim=True).clamp_min(1e-12) / largest).numpy()
    if largest == LARGEST:
        return torch.from_numpy(next_bfloat16(widest))
    best, least = torch.from_numpy(widest), torch.full(widest.shape, torch.inf)
    for shrink in _SHRINKS:
        step = torch.from_numpy(next_bfloat16(np.float32(shrink) * widest))
        error = (on_grid(weight, step, largest) - weight).abs().pow(_NORM).sum(2, keepdim=True)
        best, least = torch.where(error < least, step, best), torch.minimum(error, least)
    return best
