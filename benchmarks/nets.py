"""Teachers of the papers' tables, and students that only benchmarks use."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from edgedafl.students.resnet import wide_stem_resnet

__all__ = [
    "DigitNet",
    "FaceNet",
    "HalfFaceNet",
    "PaddedResNet",
    "WideResNet",
    "hinton_student",
    "hinton_teacher",
    "resnet20",
    "resnet32",
    "resnet34_cifar10",
    "resnet34_cifar100",
    "resnet56",
    "wrn16_1",
    "wrn16_2",
    "wrn40_1",
    "wrn40_2",
]


class FaceNet(nn.Module):
    """A small teacher of one attribute of 64x64 grey faces; one logit."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 8, 16, 32, 32)
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 16, 64), nn.ReLU())
        self.head = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(x))
        return scores


class DigitNet(nn.Module):
    """A common small MNIST network with BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 32, 32)
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(32 * 9, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(x))
        return scores


class HalfFaceNet(nn.Module):
    """The student of the face attribute: half of `FaceNet`'s channels, without dropout."""

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        widths = (input_shape[0], 4, 8, 16, 16)
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 16, 32), nn.ReLU())
        self.head = nn.Linear(32, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(x))
        return scores


def _perceptron(width: int) -> nn.Module:
    sides = (784, width, width)
    hidden = [layer for a, b in pairwise(sides) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, 10))


def hinton_teacher() -> nn.Module:
    """784-1200-1200-10."""
    return _perceptron(1200)


def hinton_student(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """784-800-800-10, 1.28 M weights."""
    return _perceptron(800)


class _PaddedBlock(nn.Module):
    """Residual block whose shortcut takes every second pixel and pads channels with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.missing = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        side = self.missing // 2
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, side, self.missing - side))
        return F.relu(y + shortcut)


class PaddedResNet(nn.Module):
    """CIFAR ResNet with parameter-free shortcuts (He et al. 2016, option A)."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        channels = (16, 16, 32, 64)
        for stage, (a, b) in enumerate(pairwise(channels), 1):
            first = _PaddedBlock(a, b, 1 if stage == 1 else 2)
            setattr(self, f"layer{stage}", nn.Sequential(first, *(_PaddedBlock(b, b, 1) for _ in range(blocks - 1))))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
        scores: Tensor = self.linear(x.mean((2, 3)))
        return scores


def resnet20() -> nn.Module:
    """The third-party CIFAR-10 teacher of 0.27 M weights."""
    return PaddedResNet(3)


def resnet32() -> nn.Module:
    """The same with five blocks a stage."""
    return PaddedResNet(5)


def resnet56() -> nn.Module:
    """The same with nine blocks a stage."""
    return PaddedResNet(9)


class _WideBlock(nn.Module):
    """Pre-activation block (Zagoruyko and Komodakis 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(y)
        total: Tensor = kept + self.conv2(F.relu(self.bn2(self.conv1(y))))
        return total


class WideResNet(nn.Module):
    """WRN-depth-factor for 32x32 images."""

    def __init__(self, depth: int, factor: int, num_classes: int) -> None:
        super().__init__()
        channels = (16, 16 * factor, 32 * factor, 64 * factor)
        layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 3, 1, 1, bias=False)]
        for stage, (a, b) in enumerate(pairwise(channels)):
            for index in range((depth - 4) // 6):
                layers.append(_WideBlock(b if index else a, b, 2 if stage and not index else 1))
        self.body = nn.Sequential(*layers, nn.BatchNorm2d(channels[-1]), nn.ReLU())
        self.head = nn.Linear(channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(x).mean((2, 3)))
        return scores


def wrn40_2() -> nn.Module:
    """The teacher of the WRN rows."""
    return WideResNet(40, 2, 10)


def wrn16_1(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Student of 0.17 M weights."""
    return WideResNet(16, 1, num_classes)


def wrn40_1(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Student of 0.56 M weights."""
    return WideResNet(40, 1, num_classes)


def wrn16_2(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Student of 0.69 M weights."""
    return WideResNet(16, 2, num_classes)


def _resnet34(num_classes: int) -> nn.Module:
    return wide_stem_resnet((3, 32, 32), num_classes, 1.0, (3, 4, 6, 3))


def resnet34_cifar10() -> nn.Module:
    """ResNet-34 with a 3x3 stem."""
    return _resnet34(10)


def resnet34_cifar100() -> nn.Module:
    """ResNet-34 with a 3x3 stem."""
    return _resnet34(100)
