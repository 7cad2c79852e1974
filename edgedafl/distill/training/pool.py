"""The replay pool: generated images as uint8 with the teacher's answers beside them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgedafl.distill.training.sampling import SamplingWeights
from edgedafl.preprocess import Preprocess

__all__ = ["Pool"]


# Weights are brought up to date when the pool has grown, or been replaced, by this share.
_STALE = 0.05


class Pool:
    """A ring buffer; the oldest images make room for new ones.

    Args:
        capacity: How many images it holds.
        input_shape: (C, H, W).
        num_classes: K.
        preprocess: Map between its pixels and model space.
        device: Where it lies; the training device, so that drawing copies nothing across.
        worth: Weighs the images; all are drawn alike when None.

    Examples:
        >>> pool = Pool(4, (1, 8, 8), 3, Preprocess.from_range(0.0, 1.0, channels=1))
        >>> pool.add(torch.rand(6, 1, 8, 8), torch.rand(6, 3))
        >>> len(pool), pool.draw(2)[0].shape
        (4, torch.Size([2, 1, 8, 8]))
    """

    def __init__(
        self,
        capacity: int,
        input_shape: tuple[int, int, int],
        num_classes: int,
        preprocess: Preprocess,
        device: torch.device | str = "cpu",
        worth: SamplingWeights | None = None,
    ) -> None:
        self.capacity = capacity
        self._preprocess = preprocess
        # Not zeros: what is not filled yet takes no memory then.
        self._pixels = torch.empty((capacity, *input_shape), dtype=torch.uint8, device=device)
        self._logits = torch.empty((capacity, num_classes), device=device)
        self._worth = worth
        self._weights = torch.ones(capacity, device=device)
        self._weighed = 0
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, images: Tensor, logits: Tensor) -> None:
        """Store images (N,C,H,W) in model space with logits (N,K)."""
        rows = (torch.arange(len(images), device=images.device) + self.added) % self.capacity
        self._pixels[rows] = self._preprocess.to_pixels(images)
        self._logits[rows] = logits
        self.added += len(images)
        if self._worth is None:
            return
        self._weights[rows] = self._worth.of(logits)
        if self.added - self._weighed > _STALE * len(self):
            self._weigh()

    def _weigh(self) -> None:
        assert self._worth is not None
        self._weighed = self.added
        self._worth.fit(self.logits())
        self._weights[: len(self)] = self._worth.of(self.logits())

    def clear(self) -> None:
        """Forget all images."""
        self.added = self._weighed = 0

    def keep_newest(self, count: int) -> None:
        """Forget all images but the newest `count`."""
        state = self.state_dict()
        places = self._newest(min(count, len(self))).flip(0)
        kept = {name: state[name][places] for name in ("pixels", "logits", "weights") if name in state}
        self.load_state_dict(state | kept | {"added": len(places), "weighed": 0})

    def draw(self, count: int, *, newest: int = 0) -> tuple[Tensor, Tensor]:
        """Images in model space and logits.

        Args:
            count: How many.
            newest: Where above 0, half of them come from that many newest images.
        """
        recent = count // 2 if newest else 0
        window = min(newest, len(self))
        places = [self._pick(len(self), count - recent, None)]
        if recent:
            places.insert(0, self._pick(window, recent, self._newest(window)))
        return self.rows(torch.cat(places))

    def _pick(self, size: int, count: int, places: Tensor | None) -> Tensor:
        """`count` of the first `size` places, or of those given, by weight."""
        if self._worth is None:
            chosen = torch.randint(size, (count,), device=self._pixels.device)
        else:
            weights = self._weights[:size] if places is None else self._weights[places]
            chosen = torch.multinomial(weights, count, replacement=True)
        return chosen if places is None else places[chosen]

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The images and logits at the given places."""
        return self._preprocess.from_pixels(self._pixels[index]), self._logits[index]

    def recent(self, count: int) -> Tensor:
        """Logits of the newest images, (at most `count`, K)."""
        return self._logits[self._newest(min(count, len(self)))]

    def _newest(self, count: int) -> Tensor:
        """Places of the newest images, the last one first."""
        return (self.added - 1 - torch.arange(count, device=self._pixels.device)) % self.capacity

    def pixels(self) -> Tensor:
        """All images held, uint8 (N,C,H,W)."""
        return self._pixels[: len(self)]

    def logits(self) -> Tensor:
        """The teacher's answers to all images held, (N, K)."""
        return self._logits[: len(self)]

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on later; only the filled part."""
        state = {"pixels": self.pixels(), "logits": self.logits(), "added": self.added}
        if self._worth is not None:
            state |= {"weights": self._weights[: len(self)], "weighed": self._weighed, "mean": self._worth.mean}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        count = min(len(state["pixels"]), self.capacity)
        self._pixels[:count] = state["pixels"][-count:].to(self._pixels.device)
        self._logits[:count] = state["logits"][-count:].to(self._logits.device)
        self.added = int(state["added"]) if count == len(state["pixels"]) else count
        if self._worth is not None:
            self._weights[:count] = state["weights"][-count:].to(self._weights.device)
            self._weighed = int(state["weighed"])
            self._worth.mean = None if state["mean"] is None else state["mean"].to(self._weights.device)
