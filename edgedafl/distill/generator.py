"""Our default generator: small, smooth, and bounded to the range of pixels."""

from __future__ import annotations

import math

from torch import Tensor, nn

from edgedafl.distill.tone import Tone
from edgedafl.preprocess import Preprocess

__all__ = ["SlimGenerator"]

_START = 8  # about how many rows the first map has
_EPSILON = 0.8  # DAFL's: a BatchNorm that only half normalises keeps contrast between maps


class SlimGenerator(nn.Module):
    """Bilinear doublings around small convolutions, then a tone curve.

    Bilinear enlargement makes strokes and surfaces where nearest-neighbour makes blocks; students
    learn real images from it several times faster. The last map has few channels because a
    convolution at full size costs more than all others together.

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
        colours, height, width = input_shape
        doublings = max(1, round(math.log2(min(height, width) / _START)))
        self.sides = (height, width)
        factor = 2**doublings
        self.start = (channels, -(-height // factor), -(-width // factor))
        self.linear = nn.Linear(latent, channels * self.start[1] * self.start[2])
        narrow = max(8, 4 * colours)
        layers: list[nn.Module] = [nn.BatchNorm2d(channels)]
        for index in range(doublings):
            last = index == doublings - 1
            if last:
                layers += _block(channels, narrow)
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
            if not last:
                layers += _block(channels, channels)
        layers.append(nn.Conv2d(narrow, colours, 3, padding=1))
        self.layers = nn.Sequential(*layers)
        self.normalize = nn.BatchNorm2d(colours, affine=False)
        self._preprocess = preprocess
        self._tone = tone

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (N, latent) to images (N,C,H,W) in model space."""
        field = self.layers(self.linear(codes).reshape(-1, *self.start))
        field = self.normalize(field[:, :, : self.sides[0], : self.sides[1]])
        return self._preprocess.to_model(self._tone.to_unit(field))


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs, eps=_EPSILON),
        nn.LeakyReLU(0.2),
    ]
