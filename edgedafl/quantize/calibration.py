"""Calibration images from the replay pool: the only images there are."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgedafl.errors import UsageError
from edgedafl.preprocess import Preprocess
from edgedafl.rundir import write_atomic
from edgedafl.tasks import SINGLE_LABEL

__all__ = ["CalibrationSet"]


@dataclass(frozen=True)
class CalibrationSet:
    """Generated images to calibrate on and to choose by.

    Attributes:
        pixels: uint8 (N,C,H,W), to collect activation ranges from.
        probe_pixels: uint8 (M,C,H,W), never trained on.
        probe_classes: The teacher's class for each probe image, (M,).
        preprocess: Map from pixels to model space.
        task: What the classes are of; see `tasks`.
    """

    pixels: np.ndarray
    probe_pixels: np.ndarray
    probe_classes: np.ndarray
    preprocess: Preprocess
    task: str = SINGLE_LABEL

    @classmethod
    def balanced(
        cls,
        pixels: np.ndarray,
        classes: np.ndarray,
        *,
        task: str = SINGLE_LABEL,
        probe_pixels: np.ndarray,
        probe_classes: np.ndarray,
        preprocess: Preprocess,
        count: int = 256,
        seed: int = 0,
    ) -> CalibrationSet:
        """Draw `count` pool images, as evenly over the teacher's classes as the pool allows.

        With several labels each combination of them is a class.
        """
        if classes.ndim > 1:
            classes = np.unique(classes, axis=0, return_inverse=True)[1].reshape(-1)
        order = np.random.default_rng(seed).permutation(len(pixels))
        rank = np.zeros(len(pixels), np.int64)
        for k in np.unique(classes):
            members = order[classes[order] == k]
            rank[members] = np.arange(len(members))
        chosen = order[np.argsort(rank[order], kind="stable")][:count]
        return cls(pixels[np.sort(chosen)], probe_pixels, probe_classes, preprocess, task)

    def images(self) -> np.ndarray:
        """Calibration images as float32 in model space."""
        return _to_model(self.pixels, self.preprocess)

    def probe_images(self) -> np.ndarray:
        """Probe images as float32 in model space."""
        return _to_model(self.probe_pixels, self.preprocess)

    @property
    def digest(self) -> str:
        """sha256 over all arrays."""
        joined = hashlib.sha256()
        for array in (self.pixels, self.probe_pixels, self.probe_classes):
            joined.update(np.ascontiguousarray(array).tobytes())
        return joined.hexdigest()

    def save(self, path: Path) -> None:
        """Write a compressed .npz atomically."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            pixels=self.pixels,
            probe_pixels=self.probe_pixels,
            probe_classes=self.probe_classes,
            task=np.array(self.task),
            low=np.array(self.preprocess.low),
            high=np.array(self.preprocess.high),
        )
        write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> CalibrationSet:
        """Read what `save` wrote.

        Raises:
            UsageError: If the file is missing or is no calibration set.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                preprocess = Preprocess(tuple(data["low"].tolist()), tuple(data["high"].tolist()))
                return cls(data["pixels"], data["probe_pixels"], data["probe_classes"], preprocess, str(data["task"]))
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(
                f"{str(path)!r} is not a calibration set: {error}.",
                "Give the calibration.npz of a run directory.",
            ) from error


def _to_model(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    low = np.array(preprocess.low, np.float32).reshape(1, -1, 1, 1)
    high = np.array(preprocess.high, np.float32).reshape(1, -1, 1, 1)
    return pixels.astype(np.float32) * ((high - low) / 255) + low
