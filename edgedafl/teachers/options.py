"""What a user may declare about a teacher."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from edgedafl.errors import UsageError
from edgedafl.graph.facts import ImageInput
from edgedafl.graph.image_input import find_image_input
from edgedafl.preprocess import Preprocess
from edgedafl.tasks import Access, Layout, Task

__all__ = ["TeacherOptions"]


@dataclass(frozen=True)
class TeacherOptions:
    """Declarations that override what is found in a model.

    Attributes:
        input_name: Which graph input holds the image.
        output_name: Which graph output holds the scores.
        input_shape: (C, H, W), where the model leaves it free.
        layout: `NCHW` or `NHWC`.
        input_range: Pixels scaled to [low, high].
        convention: Name of a common map from pixels, see `preprocess.CONVENTIONS`.
        mean: Per-channel mean of `(pixel / 255 - mean) / std`.
        std: Per-channel deviation of the same.
        weights: Weights file of a PyTorch factory.
        access: `gradient`, `scores` or `labels`: what of the teacher may be used. None takes all
            that it gives.
        task: `single-label`, `binary` or `multi-label`, where the guess is wrong.
        classes: How many, for a teacher that answers class indices only.
        max_queries: Most rows it may ever be asked about.
        trust: Whether files that can run code may be loaded.
        threads: CPU threads of a forward-only runtime.
        timeout: Seconds to wait for one answer of a server.
        token_variable: Environment variable that holds a server's bearer token.
    """

    input_name: str | None = None
    output_name: str | None = None
    input_shape: tuple[int, int, int] | None = None
    layout: Layout | None = None
    input_range: tuple[float, float] | None = None
    convention: str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    weights: Path | None = None
    access: Access | None = None
    task: Task | None = None
    classes: int | None = None
    max_queries: int | None = None
    trust: bool = False
    threads: int = 1
    timeout: float = 60.0
    token_variable: str | None = None

    @property
    def blue_first(self) -> bool:
        """Whether the model takes blue, green, red."""
        return self.convention == "caffe"

    def image_input(self, model: onnx.ModelProto) -> ImageInput:
        """The graph input that holds the image, and how it wants it.

        Raises:
            UsageError: If a choice is missing (`--input-name`, `--input-shape`).
            UnsupportedModelError: If no input holds an image.
        """
        found = find_image_input(model, name=self.input_name, image_shape=self.input_shape, layout=self.layout)
        return replace(found, blue_first=self.blue_first)

    def preprocess(self, channels: int, dtype: str = "FLOAT") -> Preprocess:
        """The declared map, or [0,255] for integer inputs and [0,1] for the rest.

        Raises:
            UsageError: If another map is declared for a model that takes pixels as whole numbers.
        """
        other = self.input_range not in (None, (0.0, 255.0)) or self.convention not in (None, "raw")
        if dtype == "UINT8" and (self.mean or self.std or other):
            raise UsageError(
                "The model takes pixels as whole numbers (uint8), which go in as they are.",
                "Leave out --preprocess, --input-mean, --input-std and --input-range: that happens inside the model.",
            )
        if self.convention is not None and (self.mean or self.std or self.input_range is not None):
            raise UsageError(
                "--preprocess is given beside --input-mean, --input-std or --input-range.", "Say one of them."
            )
        if self.convention is not None and dtype != "UINT8":
            return Preprocess.named(self.convention, channels)
        if self.mean or self.std:
            return Preprocess.from_mean_std(self.mean or (0.0,), self.std or (1.0,), channels)
        if self.input_range is not None:
            return Preprocess.from_range(*self.input_range, channels)
        if dtype == "UINT8":
            return Preprocess.from_range(0, 255, channels, origin="uint8 input")
        return Preprocess.from_range(0, 1, channels, origin="assumed")
