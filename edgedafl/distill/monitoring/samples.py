"""A picture of what the generator makes, one row per class."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from edgedafl.tasks import SINGLE_LABEL, Task, states

__all__ = ["class_sheet"]

_MARGIN = 2


def class_sheet(
    pixels: Tensor, logits: Tensor, task: Task = SINGLE_LABEL, *, columns: int = 12, rows: int = 20
) -> Image.Image:
    """The images the teacher is surest of, class by class.

    Args:
        pixels: uint8 (N,C,H,W).
        logits: The teacher's answers, (N, K).
        task: With several labels there are two rows for each: off, and on.
        columns: Images per class.
        rows: Most classes shown.

    Examples:
        >>> sheet = class_sheet(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.eye(4), columns=2)
        >>> sheet.mode
        'RGB'
    """
    _, channels, height, width = pixels.shape
    confidence = _confidence(logits, task)
    classes = confidence.argmax(1)
    shown = min(confidence.shape[1], rows)
    sheet = torch.full(
        (3, shown * (height + _MARGIN) + _MARGIN, columns * (width + _MARGIN) + _MARGIN),
        255,
        dtype=torch.uint8,
    )
    for row in range(shown):
        member = classes == row if task == SINGLE_LABEL else confidence[:, row] > 0.5
        members = torch.nonzero(member).flatten()
        best = members[confidence[members, row].argsort(descending=True)[: 4 * columns]]
        # Every fourth of the surest: the very surest images look alike.
        for column, index in enumerate(best[:: max(1, len(best) // columns)][:columns]):
            top = _MARGIN + row * (height + _MARGIN)
            left = _MARGIN + column * (width + _MARGIN)
            image = pixels[index].expand(3, -1, -1) if channels == 1 else pixels[index][:3]
            sheet[: len(image), top : top + height, left : left + width] = image
    picture = Image.fromarray(sheet.permute(1, 2, 0).contiguous().cpu().numpy())
    factor = max(1, 700 // picture.width)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _confidence(logits: Tensor, task: Task) -> Tensor:
    """Probability of every row of the sheet, (N, rows)."""
    return torch.softmax(states(logits, task), -1).flatten(1)
