"""Symmetric figures: most things that people photograph have a left and a right that are alike."""

from __future__ import annotations

import torch
from torch import Tensor

from edgedafl.distill.synthesizers.priors.fields import noise_fields

__all__ = ["composites", "profiles"]

_KNOTS = 8
_PARTS = 5
_EDGE = 0.03


def profiles(count: int, input_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Upright bodies on black: a random outline, mirrored, filled with a texture; (count, C, H, W) in [0, 1].

    The half width changes with height, smoothly or in jumps: vases, bottles, garments, towers.

    Examples:
        >>> profiles(2, (1, 28, 28), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 1, 28, 28])
    """
    _, height, width = input_shape
    rows, columns = _grid(height, width)
    body = _inside(columns, _half_widths(count, height, generator))
    top, bottom = _ends(count, generator)
    body = body * torch.sigmoid((rows - top) / _EDGE) * torch.sigmoid((bottom - rows) / _EDGE)
    # Something cut out of the middle: a neck, the gap between legs.
    gap = _inside(columns, 0.6 * _half_widths(count, height, generator))
    edge = -1 + 2 * _uniform(count, 1, generator)
    side = torch.where(_uniform(count, 1, generator) < 0.5, 1.0, -1.0)
    gap = gap * torch.sigmoid(side * (rows - edge) / _EDGE)
    body = torch.where(_uniform(count, 1, generator) < 0.5, body * (1 - gap), body)
    return body * _filling(count, input_shape, generator)


def composites(count: int, input_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Soft ellipses painted over each other, in mirrored pairs: fronts, faces, machines.

    Examples:
        >>> composites(2, (3, 32, 32), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 32, 32])
    """
    channels, height, width = input_shape
    rows, columns = _grid(height, width)
    ground = noise_fields(count, input_shape, generator) * _uniform(count, 1, generator)
    image = ground * _uniform(count, channels, generator)
    for part in range(_PARTS):
        mask = _ellipses(rows, columns, part, count, generator)
        mask = mask * (_uniform(count, 1, generator) < 0.85)
        paint = _uniform(count, channels, generator)
        image = image * (1 - mask) + mask * (0.75 * paint + 0.25 * image)
    return image.clamp(0, 1)


def _ellipses(rows: Tensor, columns: Tensor, part: int, count: int, generator: torch.Generator) -> Tensor:
    """A mirrored pair, or one in the middle; later parts are smaller and further out."""
    scale = 0.9 * 0.62**part
    tall, wide = (scale * (0.35 + 0.65 * _uniform(count, 1, generator)) for _ in range(2))
    aside = (0.0 if part == 0 else 0.8) * _uniform(count, 1, generator)
    aside = torch.where(_uniform(count, 1, generator) < 0.4, torch.zeros_like(aside), aside)
    above = (0.3 if part == 0 else 0.7) * (2 * _uniform(count, 1, generator) - 1)
    turn = (2 * _uniform(count, 1, generator) - 1) * (part > 0)
    x, y = columns.abs() - aside, rows - above
    x, y = x + turn * y, y - turn * x
    distance = ((x / wide) ** 2 + (y / tall) ** 2).sqrt()
    softness = 0.02 + 0.2 * _uniform(count, 1, generator) ** 2
    return torch.sigmoid((1 - distance) / softness)


def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    rows = torch.linspace(-1, 1, height).reshape(1, 1, height, 1)
    return rows, torch.linspace(-1, 1, width).reshape(1, 1, 1, width)


def _uniform(count: int, channels: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, channels, 1, 1, generator=generator)


def _ends(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return -1 + 0.6 * _uniform(count, 1, generator) ** 2, 1 - 0.6 * _uniform(count, 1, generator) ** 2


def _half_widths(count: int, height: int, generator: torch.Generator) -> Tensor:
    """Half widths (count, 1, height, 1), in [0, 1]: knots joined smoothly or by steps."""
    level = 0.15 + 0.75 * torch.rand(count, 1, 1, generator=generator)
    knots = level + 0.5 * (torch.rand(count, 1, _KNOTS, generator=generator) - 0.5)
    smooth = torch.nn.functional.interpolate(knots, height, mode="linear", align_corners=True)
    steps = torch.nn.functional.interpolate(knots, height, mode="nearest")
    stepped = torch.rand(count, 1, 1, generator=generator) < 0.4
    return torch.where(stepped, steps, smooth).clamp(0.05, 1).unsqueeze(3)


def _inside(columns: Tensor, half: Tensor) -> Tensor:
    return torch.sigmoid((half - columns.abs()) / _EDGE)


def _filling(count: int, input_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Brightness and texture: plain, uneven, or striped."""
    channels, height, width = input_shape
    plain = 0.3 + 0.7 * _uniform(count, channels, generator)
    uneven = 1 - 0.8 * _uniform(count, 1, generator) * noise_fields(count, input_shape, generator)
    rows, columns = _grid(height, width)
    turned = _uniform(count, 1, generator) < 0.5
    wave = torch.where(turned, rows.expand(1, 1, height, width), columns.expand(1, 1, height, width))
    stripes = 0.5 + 0.5 * torch.sin((4 + 30 * _uniform(count, 1, generator)) * wave)
    striped = 1 - 0.7 * (_uniform(count, 1, generator) < 0.3) * stripes
    return plain * uneven * striped
