"""The generator that DAFL introduced and most later methods took over."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from edgedafl.preprocess import Preprocess

__all__ = ["PublishedGenerator"]


class PublishedGenerator(nn.Module):
    """Linear, nearest-neighbour doublings with 3x3 convolutions, and an output stage.

    The papers' images of 32 pixels have two doublings from 8x8 maps; larger images may have more,
    each with half the channels of the one before. Sides that are not a multiple are generated larger
    and cropped.

    Args:
        input_shape: (C, H, W).
        latent: Length of the code.
        channels: Channels of the first stage; each later one has half of the one before.
        preprocess: Map from pixels to model space.
        output: `normalised` (tanh and a BatchNorm, so mean 0 and deviation 1 per channel: DAFL,
            DFAD), `unbounded` (the BatchNorm alone: ZSKT) or `pixels` (a sigmoid: Fast-DFKD, DFQ).
        epsilon: Of the inner BatchNorms; DAFL's is 0.8.
        doublings: Between the first maps and the image.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        latent: int,
        channels: int,
        preprocess: Preprocess,
        output: Literal["normalised", "unbounded", "pixels"],
        *,
        epsilon: float = 1e-5,
        doublings: int = 2,
    ) -> None:
        super().__init__()
        colours, height, width = input_shape
        self.sides = (height, width)
        factor = 2**doublings
        self.start = (channels, -(-height // factor), -(-width // factor))
        self._preprocess = preprocess
        self._output = output
        squash: dict[str, list[nn.Module]] = {
            "normalised": [nn.Tanh(), nn.BatchNorm2d(colours, affine=False)],
            "unbounded": [nn.BatchNorm2d(colours, affine=False)],
            "pixels": [nn.Sigmoid()],
        }
        self.linear = nn.Linear(latent, channels * self.start[1] * self.start[2])
        layers: list[nn.Module] = [nn.BatchNorm2d(channels)]
        for stage in range(doublings):
            inputs, outputs = channels >> max(0, stage - 1), channels >> stage
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, padding=1)]
            layers += [nn.BatchNorm2d(outputs, eps=epsilon), nn.LeakyReLU(0.2)]
        last = nn.Conv2d(channels >> (doublings - 1), colours, 3, padding=1)
        self.layers = nn.Sequential(*layers, last, *squash[output])

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (N, latent) to images (N,C,H,W) in model space."""
        images: Tensor = self.layers(self.linear(codes).reshape(-1, *self.start))
        images = images[:, :, : self.sides[0], : self.sides[1]]
        if self._output == "pixels":
            return self._preprocess.to_model(images)
        if self._preprocess.origin == "mean and deviation":
            return images
        # The paper's teachers take normalised images; for a bare range, mean and deviation are
        # guessed as half and a quarter of it.
        return self._preprocess.to_model(0.5 + 0.25 * images)
