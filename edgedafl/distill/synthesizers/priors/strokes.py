"""Strokes: one to three smooth pen lines, as in writing, drawings and outlines."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["pen_lines"]

_POINTS = 48
_HARMONICS = 3
# Harmonics fall off with this power of their order: pens move in smooth curves.
_SMOOTHNESS = 1.5
_LOOPING = 0.35
_RHYTHM = 3.0
_CHUNK = 256
# Most drawings are simple: one line, sometimes two, seldom three.
_LINES = (0.7, 0.22, 0.08)
# Larger images are drawn at this size and enlarged: the cost grows with pixels times points.
_LARGEST = 64


def pen_lines(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Coverage of ink in [0, 1], shape (count, 1, H, W).

    Examples:
        >>> pen_lines(2, (28, 28), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 1, 28, 28])
    """
    if not count:
        return torch.zeros(0, 1, *size)
    height, width = size
    shrink = min(1.0, _LARGEST / max(height, width))
    small = max(4, round(height * shrink)), max(4, round(width * shrink))
    ink = _line(count, small, generator)
    lines = 1 + torch.multinomial(torch.tensor(_LINES), count, replacement=True, generator=generator)
    for extra in range(2, len(_LINES) + 1):
        rows = (lines >= extra).nonzero()[:, 0]
        ink[rows] = torch.maximum(ink[rows], _line(len(rows), small, generator))
    if small != size:
        ink = F.interpolate(ink, size, mode="bilinear", align_corners=False)
    return ink


def _line(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """One line per image: its distance to every pixel, thresholded softly at the pen's width."""
    height, width = size
    points = _path(count, generator)
    rows = ((torch.arange(height) + 0.5) / height).reshape(1, height, 1, 1)
    columns = ((torch.arange(width) + 0.5) / width).reshape(1, 1, width, 1)
    pen = 0.02 + 0.07 * torch.rand(count, 1, 1, generator=generator)
    softness = 0.01 + 0.03 * torch.rand(count, 1, 1, generator=generator)
    pieces = [torch.zeros(0, height, width)]
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        x, y = points[part, 0, None, None], points[part, 1, None, None]
        distance = ((columns - x) ** 2 + (rows - y) ** 2).amin(3).sqrt()
        pieces.append(torch.sigmoid((pen[part] - distance) / softness[part]))
    return torch.cat(pieces).unsqueeze(1)


def _path(count: int, generator: torch.Generator) -> Tensor:
    """Points (count, 2, P) in the unit square: an arc of a random closed Fourier curve."""

    def uniform(*sides: int) -> Tensor:
        return torch.rand(count, *sides, generator=generator)

    order = torch.arange(1, _HARMONICS + 1).float()
    amplitude = torch.randn(count, 2, _HARMONICS, 2, generator=generator)
    # Some lines loop: each direction has a rhythm of its own, as in a figure of eight.
    rhythm = torch.softmax(_RHYTHM * torch.randn(count, 2, _HARMONICS, generator=generator), 2)
    smooth = order**-_SMOOTHNESS
    scale = torch.where(uniform(1, 1) < _LOOPING, rhythm, smooth.expand_as(rhythm))
    amplitude = amplitude * scale.unsqueeze(3)
    arc = uniform(1) + (0.25 + 0.75 * uniform(1)) * torch.linspace(0, 1, _POINTS)
    angle = 2 * math.pi * order.reshape(-1, 1, 1) * arc
    waves = torch.stack([angle.cos(), angle.sin()], -1)
    points = torch.einsum("nckb,knpb->ncp", amplitude, waves)
    low, high = points.amin(2, keepdim=True), points.amax(2, keepdim=True)
    extent = (high - low).clamp_min(1e-3)
    box = 0.3 + 0.5 * uniform(2, 1)
    # A part keeps its own proportions; the rest is stretched to its box.
    true = box.amax(1, keepdim=True) * extent / extent.amax(1, keepdim=True)
    box = torch.where(uniform(1, 1) < 0.3, true, box)
    place = 0.5 + 0.8 * (uniform(2, 1) - 0.5) * (1 - box)
    return (points - (low + high) / 2) / extent * box + place
