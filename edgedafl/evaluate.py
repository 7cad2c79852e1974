"""Accuracy on labelled data that the user gave for reporting. It never chooses anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgedafl.errors import UsageError
from edgedafl.preprocess import Preprocess

__all__ = ["LabelledData", "accuracy", "read_labelled"]

_CHUNK = 500


@dataclass(frozen=True)
class LabelledData:
    """Images (N,C,H,W) uint8 and classes (N,)."""

    images: np.ndarray
    labels: np.ndarray


def read_labelled(path: Path, input_shape: tuple[int, int, int], num_classes: int) -> LabelledData:
    """Read an .npz with `images` (uint8, NCHW or NHWC) and `labels` (integers).

    Raises:
        UsageError: If the file does not fit the model.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            images, labels = data["images"], data["labels"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"The labelled data {str(path)!r} cannot be read: {error}.",
            "Give an .npz with the arrays `images` (uint8) and `labels`.",
        ) from error
    if images.ndim == 3:
        images = images[:, None]
    if images.shape[1:] != input_shape and images.ndim == 4 and images.shape[-1] == input_shape[0]:
        images = images.transpose(0, 3, 1, 2)
    if images.dtype != np.uint8 or images.shape[1:] != tuple(input_shape):
        raise UsageError(
            f"The images of {str(path)!r} are {images.dtype} {images.shape[1:]}; "
            f"the model takes uint8 {tuple(input_shape)}.",
            "Resize them, and keep pixels in 0..255.",
        )
    if len(labels) != len(images) or not len(labels) or labels.min() < 0 or labels.max() >= num_classes:
        raise UsageError(
            f"The labels of {str(path)!r} do not fit: {len(labels)} labels for {len(images)} images, "
            f"{num_classes} classes.",
            "Give one class index per image.",
        )
    return LabelledData(np.ascontiguousarray(images), labels.astype(np.int64))


def accuracy(data: LabelledData, preprocess: Preprocess, scores_of: Callable[[np.ndarray], np.ndarray]) -> float:
    """Share of correct top-1 answers, in [0, 1]; `scores_of` takes float32 in model space."""
    low = np.array(preprocess.low, np.float32).reshape(1, -1, 1, 1)
    high = np.array(preprocess.high, np.float32).reshape(1, -1, 1, 1)
    correct = 0
    for start in range(0, len(data.images), _CHUNK):
        pixels = data.images[start : start + _CHUNK].astype(np.float32)
        scores = scores_of(pixels * ((high - low) / 255) + low)
        correct += int((scores.argmax(1) == data.labels[start : start + _CHUNK]).sum())
    return correct / len(data.images)
