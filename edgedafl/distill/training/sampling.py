"""How much an image in the pool is worth to the student.

Classes that are rarely found weigh as much as common ones, and images that the teacher is sure of
weigh more than those it hesitates about. Real images are mostly of the sure kind, and a small
student cannot afford to learn all the others as well.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgedafl.tasks import Task, states

__all__ = ["SamplingWeights"]

_CONFIDENCE_POWER = 2.0
_RAREST = 1e-3
_LEAST = 1e-6


class SamplingWeights:
    """Weights of images from the teacher's answers.

    Args:
        task: See `tasks`.

    Attributes:
        mean: Share of each class in the pool, as learned by `fit`.

    Examples:
        >>> weights = SamplingWeights("single-label")
        >>> found = weights.of(torch.tensor([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.1, 0.0]]))
        >>> bool(found[2] > found[0]), bool(found[3] < found[0])  # a rare class, and an answer that is not sure
        (True, True)
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.mean: Tensor | None = None

    def fit(self, logits: Tensor) -> None:
        """Learn how common each class is, from all answers (N, K) of the pool."""
        self.mean = torch.softmax(states(logits, self.task), -1).mean(0).clamp_min(_RAREST)

    def of(self, logits: Tensor) -> Tensor:
        """Weights (N,), positive; only their ratios matter."""
        share = torch.softmax(states(logits, self.task), -1)
        mean = share.mean(0).clamp_min(_RAREST) if self.mean is None else self.mean
        labels = share.shape[:-1].numel() // len(share)
        rarity = (share / mean).reshape(len(share), -1).sum(1) / labels
        confidence = share.amax(-1).reshape(len(share), -1).mean(1)
        return torch.nan_to_num(rarity * confidence**_CONFIDENCE_POWER, nan=0.0).clamp_min(_LEAST)
