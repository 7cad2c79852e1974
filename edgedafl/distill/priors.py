"""Procedural images: structure at all scales, no data behind it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["procedural_images"]


def procedural_images(count: int, input_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Random images in [0, 1], shape (count, C, H, W).

    Noise grids of 1, 2, 4, ... cells, enlarged smoothly and mixed with random weights, give
    structure at every scale; a random contrast and a random threshold make some of them flat
    shapes on a ground, as drawings and digits are.
    """
    channels, height, width = input_shape
    depth = max(2, min(height, width).bit_length())
    weights = torch.softmax(3 * torch.randn(count, depth, generator=generator), 1)
    images = torch.zeros(count, channels, height, width)
    for level in range(depth):
        cells = min(2**level, height), min(2**level, width)
        noise = torch.rand(count, channels, *cells, generator=generator)
        smooth = F.interpolate(noise, (height, width), mode="bilinear", align_corners=False)
        images += weights[:, level].reshape(-1, 1, 1, 1) * smooth
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    images = (images - low) / (high - low).clamp_min(1e-6)
    contrast = 1 + 15 * torch.rand(count, 1, 1, 1, generator=generator) ** 2
    threshold = 0.2 + 0.6 * torch.rand(count, 1, 1, 1, generator=generator)
    images = torch.sigmoid(contrast * (images - threshold) * 2)
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-6)
