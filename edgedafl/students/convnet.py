"""A plain convolutional network in any width: cheap on every runtime, and quick to teach."""

from __future__ import annotations

import math

from torch import Tensor, nn

__all__ = ["ConvNet"]

_CHANNELS = (16, 32, 32, 64, 64)
_HIDDEN = 64
_SMALLEST = 4


class ConvNet(nn.Module):
    """3x3 convolutions with BatchNorm and ReLU, each followed by 2x2 pooling, then two linear layers.

    As many stages as leave a map of four pixels a side or a little more.

    Args:
        input_shape: (C, H, W).
        num_classes: K.
        width: Factor on every channel count.

    Examples:
        >>> import torch
        >>> ConvNet((3, 32, 32), 10, 0.5)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int, width: float) -> None:
        super().__init__()
        inputs, height, rows = input_shape[0], *input_shape[1:]
        stages = max(1, min(len(_CHANNELS), int(math.log2(min(height, rows) / _SMALLEST) + 0.5)))
        layers: list[nn.Module] = []
        for count in _CHANNELS[:stages]:
            outputs = max(4, round(count * width / 4) * 4)
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
            inputs, height, rows = outputs, height // 2, rows // 2
        hidden = max(8, round(_HIDDEN * width / 8) * 8)
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.neck = nn.Sequential(nn.Linear(inputs * height * rows, hidden), nn.ReLU())
        self.fc = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.neck(self.body(x)))
        return logits
