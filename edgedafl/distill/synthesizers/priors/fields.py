"""Noise fields: structure at all scales, no data behind it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["collages", "noise_fields"]


def noise_fields(count: int, input_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Random fields in [0, 1], shape (count, C, H, W).

    Noise grids of 1, 2, 4, ... cells, enlarged smoothly and mixed with random weights, give
    structure at every scale; a random contrast and a random threshold make some of them flat
    shapes on a ground. Colours are correlated, as in photographs: channels share a part of the
    noise.

    Examples:
        >>> noise_fields(2, (3, 16, 16), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 16, 16])
    """
    channels, height, width = input_shape
    depth = max(2, min(height, width).bit_length())
    weights = torch.softmax(3 * torch.randn(count, depth, generator=generator), 1)
    grey = torch.rand(count, 1, 1, 1, generator=generator) if channels > 1 else 0.0
    images = torch.zeros(count, channels, height, width)
    for level in range(depth):
        cells = min(2**level, height), min(2**level, width)
        noise = torch.rand(count, channels, *cells, generator=generator)
        # In place: of large images every copy takes hundreds of megabytes.
        shared = grey * noise[:, :1]
        noise.mul_(1 - grey).add_(shared)
        smooth = F.interpolate(noise, (height, width), mode="bilinear", align_corners=False)
        images += smooth.mul_(weights[:, level].reshape(-1, 1, 1, 1))
    contrast = 1 + 15 * torch.rand(count, 1, 1, 1, generator=generator) ** 2
    threshold = 0.2 + 0.6 * torch.rand(count, 1, 1, 1, generator=generator)
    return _stretched(_stretched(images).sub_(threshold).mul_(contrast).mul_(2).sigmoid_())


def collages(count: int, input_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Two fields cut together along the outline of a third: objects on a ground.

    Examples:
        >>> collages(2, (3, 16, 16), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 16, 16])
    """
    channels = input_shape[0]
    outline = noise_fields(count, (1, *input_shape[1:]), generator)
    mask = torch.sigmoid(40 * (outline - outline.flatten(1).median(1).values.reshape(-1, 1, 1, 1)))
    inner, outer = (
        noise_fields(count, input_shape, generator) * _levels(count, channels, generator)
        + (_levels(count, channels, generator) - 0.5) * 0.5
        for _ in range(2)
    )
    return (mask * inner + (1 - mask) * outer).clamp(0, 1)


def _levels(count: int, channels: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, channels, 1, 1, generator=generator)


def _stretched(images: Tensor) -> Tensor:
    """Each image over the whole range."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - low).div_((high - low).clamp_min(1e-6))
