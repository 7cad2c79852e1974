"""Our default generator: small, smooth, and bounded to the range of pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgedafl.distill.synthesizers.generators.tone import Tone, tone_of
from edgedafl.preprocess import Preprocess
from edgedafl.teachers.base import TeacherSpec

__all__ = ["SlimGenerator"]

_START = 8  # about how many rows the first map has
_EPSILON = 0.8  # DAFL's: a BatchNorm that only half normalises keeps contrast between maps


class SlimGenerator(nn.Module):
    """Two small branches, a tone curve behind them.

    The smooth branch enlarges bilinearly throughout and makes strokes and surfaces; the sharp one
    enlarges by nearest neighbour and has one more convolution at full size. Half of a batch comes
    from each: students of teachers of enlarged images learn best from the one, of small sharp
    images from the other, and nobody can know beforehand which it is.

    Args:
        input_shape: (C, H, W), any size.
        preprocess: Map from pixels to model space.
        tone: Contrast and brightness of the images.
        latent: Length of the code.
        channels: Channels of all maps but the last.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        preprocess: Preprocess,
        tone: Tone,
        *,
        latent: int = 64,
        channels: int = 32,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_Branch(input_shape, latent, channels, sharp=sharp) for sharp in (False, True))
        self._preprocess = preprocess
        self._tone = tone

    @classmethod
    def of(cls, spec: TeacherSpec, *, latent: int, channels: int) -> SlimGenerator:
        """A generator for a teacher's images."""
        return cls(spec.input_shape, spec.preprocess, tone_of(spec.preprocess), latent=latent, channels=channels)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (N, latent) to images (N,C,H,W) in model space; N is at least 4."""
        halves = codes.chunk(len(self.branches))
        fields = [branch(half) for branch, half in zip(self.branches, halves, strict=True)]
        return self._preprocess.to_model(torch.cat([self._tone.to_unit(field) for field in fields]))


class _Branch(nn.Module):
    """Codes to a field of mean 0 and deviation 1 over the batch, per channel.

    The last map before full size has few channels: a convolution at full size costs more than
    all others together.
    """

    def __init__(self, input_shape: tuple[int, int, int], latent: int, channels: int, *, sharp: bool) -> None:
        super().__init__()
        colours, height, width = input_shape
        doublings = max(1, round(math.log2(min(height, width) / _START)))
        self.sides = (height, width)
        factor = 2**doublings
        self.start = (channels, -(-height // factor), -(-width // factor))
        self.linear = nn.Linear(latent, channels * self.start[1] * self.start[2])
        narrow = max(8, 4 * colours)
        layers: list[nn.Module] = [nn.BatchNorm2d(channels)]
        for _ in range(doublings - 1):
            layers += [nn.Upsample(scale_factor=2, mode="nearest" if sharp else "bilinear")]
            layers += _block(channels, channels)
        layers += _block(channels, narrow)
        layers.append(nn.Upsample(scale_factor=2, mode="nearest" if sharp else "bilinear"))
        if sharp:
            layers += _block(narrow, narrow)
        layers.append(nn.Conv2d(narrow, colours, 3, padding=1))
        self.layers = nn.Sequential(*layers)
        self.normalize = nn.BatchNorm2d(colours, affine=False)

    def forward(self, codes: Tensor) -> Tensor:
        maps = self.layers(self.linear(codes).reshape(-1, *self.start))
        field: Tensor = self.normalize(maps[:, :, : self.sides[0], : self.sides[1]])
        return field


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs, eps=_EPSILON),
        nn.LeakyReLU(0.2),
    ]
