"""The replay pool: generated images as uint8 with the teacher's answers beside them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgedafl.preprocess import Preprocess

__all__ = ["Pool"]


class Pool:
    """A ring buffer; the oldest images make room for new ones.

    Args:
        capacity: How many images it holds.
        input_shape: (C, H, W).
        num_classes: K.
        preprocess: Map between its pixels and model space.
        device: Where it lies; the training device, so that drawing copies nothing across.
    """

    def __init__(
        self,
        capacity: int,
        input_shape: tuple[int, int, int],
        num_classes: int,
        preprocess: Preprocess,
        device: torch.device | str = "cpu",
    ) -> None:
        self.capacity = capacity
        self._preprocess = preprocess
        self._pixels = torch.zeros((capacity, *input_shape), dtype=torch.uint8, device=device)
        self._logits = torch.zeros((capacity, num_classes), device=device)
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, images: Tensor, logits: Tensor) -> None:
        """Store images (N,C,H,W) in model space with logits (N,K)."""
        rows = (torch.arange(len(images), device=images.device) + self.added) % self.capacity
        self._pixels[rows] = self._preprocess.to_pixels(images)
        self._logits[rows] = logits
        self.added += len(images)

    def draw(self, count: int, *, newest: int = 0) -> tuple[Tensor, Tensor]:
        """Images in model space and logits.

        Args:
            count: How many.
            newest: Where above 0, half of them come from that many newest images.
        """
        device = self._pixels.device
        recent = count // 2 if newest else 0
        window = min(newest, len(self)) if newest else 1
        fresh = (self.added - 1 - torch.randint(window, (recent,), device=device)) % self.capacity
        anywhere = torch.randint(len(self), (count - recent,), device=device)
        return self.rows(torch.cat([fresh, anywhere]))

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The images and logits at the given places."""
        return self._preprocess.from_pixels(self._pixels[index]), self._logits[index]

    def recent(self, count: int) -> Tensor:
        """Logits of the newest images, (at most `count`, K)."""
        back = torch.arange(min(count, len(self)), device=self._logits.device)
        return self._logits[(self.added - 1 - back) % self.capacity]

    def pixels(self) -> Tensor:
        """All images held, uint8 (N,C,H,W)."""
        return self._pixels[: len(self)]

    def logits(self) -> Tensor:
        """The teacher's answers to all images held, (N, K)."""
        return self._logits[: len(self)]

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on later; only the filled part."""
        return {"pixels": self.pixels(), "logits": self.logits(), "added": self.added}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        count = len(state["pixels"])
        self._pixels[:count] = state["pixels"].to(self._pixels.device)
        self._logits[:count] = state["logits"].to(self._logits.device)
        self.added = int(state["added"])
