"""Calibration images from the replay pool: the only images there are."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgedafl.errors import UsageError
from edgedafl.files import write_atomic
from edgedafl.files.arrays import read_arrays
from edgedafl.preprocess import Preprocess
from edgedafl.tasks import SINGLE_LABEL, Task, task_named

__all__ = ["CalibrationSet"]

_PIECE = 128  # probes
_TRAINING_IMAGES = 8192
_TRAINING_BYTES = 32 << 20


@dataclass(frozen=True)
class CalibrationSet:
    """Generated images to calibrate on and to choose by.

    Attributes:
        pixels: uint8 (N,C,H,W), to take the ranges of activations from.
        probe_pixels: uint8 (M,C,H,W), never trained on.
        probe_classes: The teacher's class for each probe image, (M,).
        preprocess: Map from pixels to model space.
        task: What the classes are of; see `tasks`.
        training_pixels: uint8 (T,C,H,W), for rounding and quantization-aware training; may be empty.
        training_logits: The teacher's logits for them, float32 (T,K).
    """

    pixels: np.ndarray
    probe_pixels: np.ndarray
    probe_classes: np.ndarray
    preprocess: Preprocess
    task: Task = SINGLE_LABEL
    training_pixels: np.ndarray = field(default_factory=lambda: np.zeros((0,), np.uint8))
    training_logits: np.ndarray = field(default_factory=lambda: np.zeros((0,), np.float32))

    @classmethod
    def balanced(
        cls,
        pixels: np.ndarray,
        classes: np.ndarray,
        *,
        task: Task = SINGLE_LABEL,
        probe_pixels: np.ndarray,
        probe_classes: np.ndarray,
        preprocess: Preprocess,
        logits: np.ndarray | None = None,
        count: int = 256,
        seed: int = 0,
    ) -> CalibrationSet:
        """Draw `count` pool images, as evenly over the teacher's classes as the pool allows.

        With several labels each combination of them is a class. With the pool's `logits` images
        to train on are drawn the same way, as many as 32 MiB hold.
        """
        order = _balanced_order(classes, seed)
        chosen = np.sort(order[:count])
        found = cls(pixels[chosen], probe_pixels, probe_classes, preprocess, task)
        if logits is None:
            return found
        fitting = max(1, min(_TRAINING_IMAGES, _TRAINING_BYTES // max(pixels[:1].nbytes, 1)))
        rows = np.sort(order[:fitting])
        return replace(found, training_pixels=pixels[rows], training_logits=logits[rows].astype(np.float32))

    def training_batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images in model space and the teacher's logits of some training rows."""
        return _to_model(self.training_pixels[rows], self.preprocess), self.training_logits[rows]

    def images(self, count: int | None = None) -> np.ndarray:
        """Images for ranges, as float32 in model space; the first `count`, or all."""
        return _to_model(self.pixels[:count], self.preprocess)

    def rounding_images(self, count: int) -> np.ndarray:
        """Images to round weights by, as float32 in model space; at most `count`, evenly spread."""
        pixels = self.training_pixels if len(self.training_pixels) else self.pixels
        return _to_model(pixels[:: max(1, len(pixels) // count)][:count], self.preprocess)

    def probe_images(self, count: int | None = None) -> np.ndarray:
        """Probe images as float32 in model space; the first `count`, or all: at 224 pixels a gigabyte."""
        return _to_model(self.probe_pixels[:count], self.preprocess)

    def probe_scores(self, scores_of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """What a model answers to all probes (M, K), of which some at a time are in memory as floats.

        Args:
            scores_of: Images (N,C,H,W) in model space to scores (N, K).
        """
        pieces = (self.probe_pixels[at : at + _PIECE] for at in range(0, len(self.probe_pixels), _PIECE))
        return np.concatenate([scores_of(_to_model(piece, self.preprocess)) for piece in pieces])

    @property
    def digest(self) -> str:
        """sha256 over all arrays."""
        joined = hashlib.sha256()
        for array in (self.pixels, self.probe_pixels, self.probe_classes):
            joined.update(np.ascontiguousarray(array).tobytes())
        return joined.hexdigest()

    def save(self, path: Path) -> None:
        """Write an .npz atomically; not compressed, which takes seconds and saves a tenth."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            pixels=self.pixels,
            probe_pixels=self.probe_pixels,
            probe_classes=self.probe_classes,
            task=np.array(self.task),
            training_pixels=self.training_pixels,
            training_logits=self.training_logits,
            low=np.array(self.preprocess.low),
            high=np.array(self.preprocess.high),
        )
        write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> CalibrationSet:
        """Read what `save` wrote.

        Raises:
            UsageError: If the file is missing or is not a calibration set.
        """
        try:
            data = read_arrays(path)
            preprocess = Preprocess(tuple(data["low"].tolist()), tuple(data["high"].tolist()))
            task = task_named(str(data["task"]))
            main = (data["pixels"], data["probe_pixels"], data["probe_classes"], preprocess, task)
            if "training_pixels" not in data:
                return cls(*main)
            return cls(*main, data["training_pixels"], data["training_logits"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{str(path)!r} is not a calibration set: {error}.",
                "Give the calibration.npz of a run directory.",
            ) from error


def _balanced_order(classes: np.ndarray, seed: int) -> np.ndarray:
    """Rows in an order whose every beginning is as even over the classes as they allow."""
    if classes.ndim > 1:
        classes = np.unique(classes, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.random.default_rng(seed).permutation(len(classes))
    rank = np.zeros(len(classes), np.int64)
    for k in np.unique(classes):
        members = order[classes[order] == k]
        rank[members] = np.arange(len(members))
    return np.asarray(order[np.argsort(rank[order], kind="stable")])


def _to_model(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    low = np.array(preprocess.low, np.float32).reshape(1, -1, 1, 1)
    high = np.array(preprocess.high, np.float32).reshape(1, -1, 1, 1)
    images = pixels.astype(np.float32)
    images *= (high - low) / 255
    images += low
    return images
