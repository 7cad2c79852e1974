"""Images with the statistics of natural ones: 1/f spectra, and dead leaves painted with them.

A natural image's amplitude falls with about the first power of its frequency (Field 1987). Objects hide
each other: shapes whose radii follow a power law, painted one over the other ("dead leaves", Lee,
Mumford and Huang 2001; as training images Baradad et al. 2021, arXiv 2106.05963).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["dead_leaves", "spectra"]

_EXPONENTS = (0.6, 2.0)
"""Of the amplitude by frequency; photographs lie around 1."""
_SHAPES = (6, 40)
_LARGEST = 0.6
_SMALLEST = 0.03
"""Radii of shapes as shares of the image's side."""
_PAINTED = 96
"""Shapes are painted at most at this many pixels a side, and enlarged: the cost grows with pixels times shapes."""
_COMMON = 0.75
"""Share of a texture's variation that all colours have in common; photographs are mostly grey."""


def spectra(count: int, input_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Random fields with 1/f spectra and correlated colours, in [0, 1], shape (count, C, H, W).

    Examples:
        >>> images = spectra(2, (3, 32, 32), torch.Generator().manual_seed(0))
        >>> images.shape, bool(images.min() >= 0), bool(images.max() <= 1)
        (torch.Size([2, 3, 32, 32]), True, True)
    """
    texture = _textures(count, input_shape, generator)
    mean = 0.15 + 0.7 * _uniform(count, input_shape[0], generator)
    mean = 0.5 * mean + 0.5 * mean.mean(1, keepdim=True)
    contrast = 0.05 + 0.3 * _uniform(count, 1, generator)
    return (mean + contrast * texture).clamp(0, 1)


def dead_leaves(count: int, input_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Textured shapes over each other on a textured ground, in [0, 1], shape (count, C, H, W).

    Examples:
        >>> images = dead_leaves(2, (3, 32, 32), torch.Generator().manual_seed(0))
        >>> images.shape, bool(images.min() >= 0), bool(images.max() <= 1)
        (torch.Size([2, 3, 32, 32]), True, True)
    """
    channels, height, width = input_shape
    if not count:
        return torch.zeros(0, *input_shape)
    shrink = min(1.0, _PAINTED / max(height, width))
    small = (channels, max(4, round(height * shrink)), max(4, round(width * shrink)))
    image = spectra(count, small, generator)
    textures = _textures(count, small, generator)
    base = _uniform(count, channels, generator)
    shapes = int(torch.randint(_SHAPES[0], _SHAPES[1] + 1, (), generator=generator))
    for _ in range(shapes):
        mask = _shape(count, small[1:], generator)
        image = image * (1 - mask) + mask * _paint(base, textures, generator)
    image = F.interpolate(image, (height, width), mode="bicubic", align_corners=False)
    if shrink < 1:  # what enlarging has smoothed away
        image = image + 0.06 * _uniform(count, 1, generator) * _textures(count, input_shape, generator)
    return _lit(image, generator).clamp(0, 1)


def _paint(base: Tensor, textures: Tensor, generator: torch.Generator) -> Tensor:
    """A colour near the image's own, with a texture, for every image."""
    count, channels = base.shape[:2]
    own = _uniform(count, channels, generator)
    grey = own.mean(1, keepdim=True)
    vivid = _uniform(count, 1, generator)
    colour = 0.3 * base + 0.7 * (vivid * own + (1 - vivid) * grey)
    strength = 0.3 * _uniform(count, 1, generator) ** 2
    order = torch.randperm(count, generator=generator)
    turned = textures[order].flip(int(torch.randint(2, 4, (), generator=generator)))
    return colour + strength * turned


def _shape(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Masks (count, 1, H, W) of one ellipse, rectangle or triangle each."""
    height, width = size
    rows = torch.linspace(0, 1, height).reshape(1, 1, height, 1)
    columns = torch.linspace(0, width / height, width).reshape(1, 1, 1, width)
    x = columns - width / height * _uniform(count, 1, generator)
    y = rows - _uniform(count, 1, generator)
    angle = 2 * math.pi * _uniform(count, 1, generator)
    across, along = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    # Density of radii proportional to r^-3, between the bounds.
    low, high = _LARGEST**-2, _SMALLEST**-2
    radius = (low + (high - low) * _uniform(count, 1, generator) ** 2.5) ** -0.5
    squeeze = 0.35 + 0.65 * _uniform(count, 1, generator)
    u, v = across / radius, along / (radius * squeeze)
    ellipse = 1 - (u * u + v * v).sqrt()
    box = 1 - torch.maximum(u.abs(), v.abs())
    wedge = torch.minimum(v + 1, 1 - v - 1.5 * u.abs())
    kind = _uniform(count, 1, generator)
    distance = torch.where(kind < 0.5, ellipse, torch.where(kind < 0.8, box, wedge))
    sharpness = radius * height / (0.5 + 2 * _uniform(count, 1, generator) ** 3)
    return torch.sigmoid(2 * distance * sharpness)


def _lit(image: Tensor, generator: torch.Generator) -> Tensor:
    """Light that falls from one side, and another exposure."""
    count, _, height, width = image.shape
    rows = torch.linspace(-1, 1, height).reshape(1, 1, height, 1)
    columns = torch.linspace(-1, 1, width).reshape(1, 1, 1, width)
    slopes = 0.25 * torch.randn(2, count, 1, 1, 1, generator=generator)
    light = 1 + slopes[0] * rows + slopes[1] * columns
    gamma = 2 ** (1.2 * (_uniform(count, 1, generator) - 0.5))
    return (image.clamp(0, 1) ** gamma) * light


def _textures(count: int, input_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Fields of mean 0 and deviation 1 with amplitudes 1/f^a, their colours mostly one; (count, C, H, W)."""
    channels, height, width = input_shape
    if not count:
        return torch.zeros(0, *input_shape)
    frequency = (torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width)[None] ** 2).sqrt()
    frequency[0, 0] = 1.0
    low, high = _EXPONENTS
    exponent = low + (high - low) * _uniform(count, 1, generator)
    amplitude = frequency**-exponent
    amplitude[..., 0, 0] = 0
    noise = torch.randn(2, count, channels, *frequency.shape, generator=generator)
    fields = torch.fft.irfft2(torch.complex(noise[0], noise[1]) * amplitude, s=(height, width))
    if channels > 1:
        fields = _COMMON * fields[:, :1] + (1 - _COMMON) * fields
    found: Tensor = fields / fields.std((1, 2, 3), keepdim=True).clamp_min(1e-6)
    return found


def _uniform(count: int, channels: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, channels, 1, 1, generator=generator)
