"""MobileNetV2 (Sandler et al. 2018) in any width, with strides that fit small images."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["MobileNetV2"]

# expansion, channels, repeats, stride: table 2 of arXiv 1801.04381.
_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip


def _channels(count: int, width: float) -> int:
    """Multiples of 8, never more than 10 % below the wanted count."""
    rounded = max(8, int(count * width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * count * width else rounded + 8


def _conv(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU6()]


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers = _conv(inputs, hidden, 1, 1, 1) if expansion > 1 else []
        layers += _conv(hidden, hidden, 3, stride, hidden)
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """Inverted residuals with linear bottlenecks.

    Args:
        input_shape: (C, H, W); below 96 pixels the first two strides are 1.
        num_classes: K.
        width: Factor on the channels.

    Examples:
        >>> import torch
        >>> MobileNetV2((3, 32, 32), 10, 0.25)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int, width: float) -> None:
        super().__init__()
        small = min(input_shape[1:]) < 96
        inputs = _channels(32, width)
        layers = _conv(input_shape[0], inputs, 3, 1 if small else 2, 1)
        for expansion, count, repeats, stride in _STAGES:
            outputs = _channels(count, width)
            stride = 1 if small and count == 24 else stride
            for index in range(repeats):
                step = stride if index == 0 else 1
                layers.append(_InvertedResidual(inputs, outputs, step, expansion))
                inputs = outputs
        last = _channels(1280, max(1.0, width)) if width >= 1 else _channels(1280, width)
        layers += _conv(inputs, last, 1, 1, 1)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pool(self.features(x)).flatten(1))
        return logits
