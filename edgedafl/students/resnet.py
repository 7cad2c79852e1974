"""Residual networks: the CIFAR family (He et al. 2016, section 4.2) and ResNet-18/34."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ResNet", "cifar_resnet", "wide_stem_resnet"]


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Stages of residual blocks behind a stem that fits the image size.

    Args:
        input_shape: (C, H, W).
        num_classes: K.
        channels: Channels of each stage; every stage but the first halves the map.
        blocks: Blocks per stage.

    Examples:
        >>> import torch
        >>> ResNet((3, 32, 32), 10, (8, 16), (1, 1))(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        channels: Sequence[int],
        blocks: Sequence[int],
    ) -> None:
        super().__init__()
        # Images of 96 pixels and more get the 7x7 stride-2 stem of ImageNet networks.
        large = min(input_shape[1:]) >= 96
        kernel, stride = (7, 2) if large else (3, 1)
        self.stem = nn.Sequential(
            nn.Conv2d(input_shape[0], channels[0], kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1) if large else nn.Identity(),
        )
        layers: list[nn.Module] = []
        inputs = channels[0]
        for stage, (outputs, count) in enumerate(zip(channels, blocks, strict=True)):
            for index in range(count):
                layers.append(_Block(inputs, outputs, 2 if stage and not index else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pool(self.blocks(self.stem(x))).flatten(1))
        return logits


def _scaled(channels: Sequence[int], width: float) -> list[int]:
    """Multiples of 8: what integer kernels and tensor cores take without padding."""
    return [max(8, round(c * width / 8) * 8) for c in channels]


def cifar_resnet(input_shape: tuple[int, int, int], num_classes: int, width: float, depth: int) -> ResNet:
    """ResNet-8/14/20: three stages of 16-32-64 channels, `(depth - 2) / 6` blocks each.

    Examples:
        >>> import torch
        >>> cifar_resnet((3, 32, 32), 10, 1.0, 8)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    count = (depth - 2) // 6
    return ResNet(input_shape, num_classes, _scaled((16, 32, 64), width), [count] * 3)


def wide_stem_resnet(
    input_shape: tuple[int, int, int], num_classes: int, width: float, blocks: Sequence[int]
) -> ResNet:
    """ResNet-18 (2-2-2-2) and ResNet-34 (3-4-6-3): four stages of 64-128-256-512 channels.

    Examples:
        >>> import torch
        >>> wide_stem_resnet((3, 32, 32), 10, 0.125, (2, 2, 2, 2))(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    return ResNet(input_shape, num_classes, _scaled((64, 128, 256, 512), width), blocks)
