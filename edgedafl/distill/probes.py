"""Probe sets: synthetic images that are never trained on, to watch a student by.

What they give is *synthetic agreement*, the share of equal top-1 answers. It is never called
accuracy: nobody can say from it how the student does on real images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgedafl.preprocess import Preprocess
from edgedafl.tasks import SINGLE_LABEL, states

__all__ = ["Agreement", "ProbeSets"]

_CHUNK = 512


@dataclass(frozen=True)
class Agreement:
    """Share of equal top-1 answers, in [0, 1].

    Attributes:
        sets: By probe set.
        generated: Mean over the generated sets; the priors where there are none yet.
        lowest: The worst set.
    """

    sets: dict[str, float]
    generated: float
    lowest: float


class ProbeSets:
    """Frozen uint8 sets with the teacher's class for each image."""

    def __init__(self, preprocess: Preprocess, task: str = SINGLE_LABEL) -> None:
        self._task = task
        self._preprocess = preprocess
        self._pixels: dict[str, Tensor] = {}
        self._classes: dict[str, Tensor] = {}

    @property
    def names(self) -> list[str]:
        """Names of the sets, oldest first."""
        return list(self._pixels)

    def add(self, name: str, images: Tensor, scores_of: Callable[[Tensor], Tensor]) -> None:
        """Freeze a set of images (N,C,H,W, model space); the teacher is asked once."""
        pixels = self._preprocess.to_pixels(images)
        exact = self._preprocess.from_pixels(pixels)
        self._pixels[name] = pixels
        self._classes[name] = torch.cat(
            [states(scores_of(x), self._task).argmax(-1) for x in torch.split(exact, _CHUNK)]
        )

    def images(self, name: str) -> Tensor:
        """One set in model space."""
        return self._preprocess.from_pixels(self._pixels[name])

    def pixels(self, name: str) -> Tensor:
        """One set as uint8."""
        return self._pixels[name]

    def classes(self, name: str) -> Tensor:
        """The teacher's classes for one set: (N,), or (N, K) of 0 and 1."""
        return self._classes[name]

    def agreement(self, scores_of: Callable[[Tensor], Tensor]) -> Agreement:
        """Agreement of a model, given as a function from images to scores (N, K)."""
        shares = {}
        for name in self.names:
            guess = torch.cat(
                [states(scores_of(x), self._task).argmax(-1) for x in torch.split(self.images(name), _CHUNK)]
            )
            same = guess.to(self._classes[name].device) == self._classes[name]
            shares[name] = float(same.float().mean())
        generated = [v for name, v in shares.items() if name.startswith("generated")]
        values = generated or list(shares.values()) or [0.0]
        return Agreement(shares, sum(values) / len(values), min(shares.values(), default=0.0))

    def state_dict(self) -> dict[str, Any]:
        """All sets."""
        return {"pixels": dict(self._pixels), "classes": dict(self._classes)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._pixels = dict(state["pixels"])
        self._classes = dict(state["classes"])
