"""Eleven small networks of the families that people deploy, and their exports to ONNX.

All take 3x32x32 (LeNet-5 1x32x32) and answer ten logits. Weights are random, BatchNorm statistics
are not trivial: an importer that swaps or drops one is found out.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgedafl.students import build_student

__all__ = ["EXPORTS", "NETS", "build", "export"]


class _Sum(nn.Module):
    """A residual sum."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.body(x)


class _Squeeze(nn.Module):
    """Squeeze-and-excitation."""

    def __init__(self, channels: int, gate: type[nn.Module]) -> None:
        super().__init__()
        self.down, self.up = (
            nn.Conv2d(channels, max(4, channels // 4), 1),
            nn.Conv2d(max(4, channels // 4), channels, 1),
        )
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class _Shuffle(nn.Module):
    """ShuffleNet v2 unit: half of the channels pass, then channels are interleaved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(
            _conv(half, half, 1), nn.Conv2d(half, half, 3, padding=1, groups=half), nn.BatchNorm2d(half),
            _conv(half, half, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        joined = torch.cat([kept, self.body(changed)], 1)
        n, c, h, w = joined.shape
        return joined.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class _Dense(nn.Module):
    """A DenseNet layer: its output is appended to its input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(channels), nn.Conv2d(channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


class _Attention(nn.Module):
    """Multi-head self-attention, written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(c // self.heads), -1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, t, c))


class _Vit(nn.Module):
    """A vision transformer with a class token."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.token, self.place = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 17, width) * 0.1)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    _Sum(nn.Sequential(nn.LayerNorm(width), _Attention(width, 4))),
                    _Sum(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 96), nn.GELU(), nn.Linear(96, width))),
                )
                for _ in range(2)
            )
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1) + self.place
        return self.head(self.norm(self.blocks(tokens))[:, 0])


class _Permute(nn.Module):
    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(*self.order)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), act()
    )


def _inverted(channels: int, act: type[nn.Module], gate: type[nn.Module]) -> nn.Module:
    wide = 3 * channels
    return _Sum(
        nn.Sequential(
            _conv(channels, wide, 1, act=act),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide), act(),
            _Squeeze(wide, gate),
            nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels),
        )
    )  # fmt: skip


def _headed(*body: nn.Module, width: int) -> nn.Module:
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(width, 10))


def _convnext() -> nn.Module:
    def block(c: int) -> nn.Module:
        return _Sum(
            nn.Sequential(
                nn.Conv2d(c, c, 7, padding=3, groups=c), _Permute(0, 2, 3, 1), nn.LayerNorm(c),
                nn.Linear(c, 3 * c), nn.GELU(), nn.Linear(3 * c, c), _Permute(0, 3, 1, 2),
            )
        )  # fmt: skip

    return _headed(nn.Conv2d(3, 24, 4, 4), block(24), nn.Conv2d(24, 48, 2, 2), block(48), width=48)


def _densenet() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1)]
    channels = 16
    for index in range(6):
        layers.append(_Dense(channels, 8))
        channels += 8
        if index in (1, 3):
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1), nn.AvgPool2d(2)]
            channels //= 2
    return _headed(*layers, nn.BatchNorm2d(channels), nn.ReLU(), width=channels)


def _vgg() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64), (64, 64)):
        layers += [_conv(inputs, outputs, 3), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10))


def _student(name: str, shape: tuple[int, int, int] = (3, 32, 32)) -> Callable[[], nn.Module]:
    return lambda: build_student(name, shape, 10).module


NETS: dict[str, Callable[[], nn.Module]] = {
    "lenet5": _student("lenet5", (1, 32, 32)),
    "resnet20": _student("resnet20"),
    "resnet18": _student("resnet18:0.25"),
    "mobilenetv2": _student("mobilenetv2:0.5"),
    "efficientnet": lambda: _headed(_conv(3, 16, 3, 2, nn.SiLU), _inverted(16, nn.SiLU, nn.Sigmoid), width=16),
    "mobilenetv3": lambda: _headed(
        _conv(3, 16, 3, 2, nn.Hardswish), _inverted(16, nn.Hardswish, nn.Hardsigmoid), width=16
    ),
    "vgg": _vgg,
    "densenet": _densenet,
    "shufflenet": lambda: _headed(_conv(3, 24, 3, 2), _Shuffle(24), _Shuffle(24), nn.MaxPool2d(3, 2, 1), width=24),
    "vit": _Vit,
    "convnext": _convnext,
}

EXPORTS = ("script", "script, BatchNorm kept", "dynamo", "dynamo, not optimized")


def build(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """A network in evaluation mode with lived-in BatchNorm statistics, and its input shape."""
    torch.manual_seed(len(name))
    module = NETS[name]()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.7, 1.3)
            nn.init.normal_(layer.bias, 0, 0.1)
    return module.eval(), (1 if name == "lenet5" else 3, 32, 32)


def export(module: nn.Module, shape: tuple[int, int, int], form: str, path: Path) -> Path:
    """Write one export; the batch is free."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    example = torch.rand(2, *shape)
    names = {"input_names": ["image"], "output_names": ["scores"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form.startswith("script"):
            keep = form != "script"
            torch.onnx.export(
                module, (example,), path, dynamo=False, dynamic_axes={"image": {0: "n"}},
                training=torch.onnx.TrainingMode.PRESERVE if keep else torch.onnx.TrainingMode.EVAL,
                do_constant_folding=not keep, **names,
            )  # fmt: skip
        else:
            torch.onnx.export(
                module, (example,), path, dynamic_shapes=({0: torch.export.Dim("n")},),
                optimize=form == "dynamo", verbose=False, **names,
            )  # fmt: skip
    return path
