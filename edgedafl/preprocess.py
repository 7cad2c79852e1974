"""The affine map between pixels and what a model's interface takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgedafl.constants import constant
from edgedafl.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CONVENTIONS", "Preprocess", "middle_share"]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CAFFE = (123.68, 116.779, 103.939)
CONVENTIONS = {
    "unit": "0 to 1",
    "tf": "-1 to 1",
    "raw": "0 to 255",
    "imagenet": "ImageNet mean and deviation",
    "caffe": "0 to 255 less ImageNet's mean, blue first",
}
"""What training frameworks do to pixels, by the name that `--preprocess` takes.

Who loads a teacher turns the channels of `caffe` round: images are red, green, blue everywhere here.
"""
_COLOUR = {"imagenet", "caffe"}


def middle_share(side: int, full: int) -> float:
    """Share of width and height whose middle is shrunk for a network that knows larger images.

    Shrunk as a whole, things get smaller than the network knows them, and answers change (FixRes, arXiv
    1906.06423). So the factor is shared: its square root is cropped, and the rest is shrunk. On five networks of
    photographs that wins 1.8 points of the answers at half of the arithmetic, and more below (docs/experiments.md).

    Args:
        side: Of the images that the network is fed.
        full: Of those that it was trained on.

    Examples:
        >>> round(middle_share(160, 224), 3), middle_share(224, 224)
        (0.845, 1.0)
    """
    return math.sqrt(min(1.0, side / full))


@dataclass(frozen=True)
class Preprocess:
    """Pixel value 0 maps to `low` and 255 to `high`, per channel, in model space.

    Attributes:
        low: One value per channel: what the model is fed for a black pixel.
        high: One value per channel: what the model is fed for a full pixel.
        origin: How this is known: `mean and deviation`, `range`, `uint8 input`; what begins with `found` was
            seen in the model, what begins with `guessed` or `assumed` was not.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    origin: str = "range"

    @classmethod
    def from_range(cls, low: float, high: float, channels: int, origin: str = "range") -> Preprocess:
        """Pixels scaled to [low, high].

        Raises:
            UsageError: If the range is empty.
        """
        if not high > low:
            raise UsageError(f"The input range {low:g},{high:g} is empty.", "Give low,high with low < high.")
        return cls((float(low),) * channels, (float(high),) * channels, origin)

    @classmethod
    def from_mean_std(
        cls, mean: Sequence[float], std: Sequence[float], channels: int, origin: str = "mean and deviation"
    ) -> Preprocess:
        """`(pixel / 255 - mean) / std`, one or `channels` values each.

        Raises:
            UsageError: If the counts do not fit the channels, or a deviation is not positive.
        """
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, channels):
                raise UsageError(
                    f"--input-{name} has {len(values)} values; the image has {channels} channels.",
                    f"Give one value, or {channels}.",
                )
        means = tuple(mean) * (channels if len(mean) == 1 else 1)
        stds = tuple(std) * (channels if len(std) == 1 else 1)
        if min(stds) <= 0:
            raise UsageError(f"--input-std holds {min(stds):g}; it must be above 0.")
        low = tuple(-m / s for m, s in zip(means, stds, strict=True))
        high = tuple((1 - m) / s for m, s in zip(means, stds, strict=True))
        return cls(low, high, origin)

    @classmethod
    def named(cls, name: str, channels: int, origin: str | None = None) -> Preprocess:
        """One of the `CONVENTIONS`.

        Raises:
            UsageError: If it is none of them, or asks for three channels where there are others.
        """
        if name not in CONVENTIONS:
            raise UsageError(f"There is no preprocessing {name!r}.", f"Known are {', '.join(CONVENTIONS)}.")
        if name in _COLOUR and channels != 3:
            raise UsageError(f"ImageNet's mean is of three channels; the image has {channels}.", "Choose another.")
        if name == "imagenet":
            return cls.from_mean_std(*_IMAGENET, channels, origin or "mean and deviation")
        if name == "caffe":
            low = tuple(-mean for mean in _CAFFE)
            return cls(low, tuple(255 + mean for mean in low), origin or "range")
        least, most = {"unit": (0, 1), "tf": (-1, 1), "raw": (0, 255)}[name]
        return cls.from_range(least, most, channels, origin or "range")

    @classmethod
    def common(cls, channels: int) -> dict[str, Preprocess]:
        """The `CONVENTIONS` of red, green, blue that images of so many channels can have, by name."""
        names = [name for name in CONVENTIONS if name != "caffe" and (name not in _COLOUR or channels == 3)]
        return {name: cls.named(name, channels) for name in names}

    @property
    def is_guess(self) -> bool:
        """Whether neither the user nor the model says so."""
        return self.origin.startswith(("assumed", "guessed"))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Preprocess:
        """Inverse of `to_dict`."""
        return cls(tuple(data["low"]), tuple(data["high"]), str(data.get("origin", "range")))

    def to_dict(self) -> dict[str, Any]:
        """A JSON form; `scale` and `offset` give `model = pixel * scale + offset`."""
        return {
            "low": list(self.low),
            "high": list(self.high),
            "scale": [(h - lo) / 255 for lo, h in zip(self.low, self.high, strict=True)],
            "offset": list(self.low),
            "origin": self.origin,
        }

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low = constant(self.low, like).reshape(1, -1, 1, 1)
        return low, constant(self.high, like).reshape(1, -1, 1, 1) - low

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """What black and full pixels are in model space, (1,C,1,1) each, on the device of `like`."""
        low, span = self._columns(like)
        return low, low + span

    def to_model(self, unit: Tensor) -> Tensor:
        """Images in [0, 1], shape (N,C,H,W), to model space; differentiable."""
        low, span = self._columns(unit)
        return (unit * span).add_(low)  # of large images every copy takes hundreds of megabytes

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """uint8 images (N,C,H,W) to float32 in model space."""
        import torch

        images = pixels.to(torch.float32, copy=True)
        low, span = self._columns(images)
        return images.mul_(span / 255).add_(low)

    def to_pixels(self, images: Tensor) -> Tensor:
        """Model space to uint8, clamped to the range of pixels."""
        import torch

        low, span = self._columns(images)
        return ((images - low) * (255 / span)).round_().clamp_(0, 255).to(torch.uint8)
