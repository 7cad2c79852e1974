"""Labelled images in an .npz. They serve reports only and never choose anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgedafl.errors import UsageError
from edgedafl.files.arrays import read_arrays
from edgedafl.tasks import SINGLE_LABEL, Task

__all__ = ["LabelledData", "read_labelled"]


@dataclass(frozen=True)
class LabelledData:
    """Images (N,C,H,W) uint8 and classes (N,), or labels (N,K) of 0 and 1."""

    images: np.ndarray
    labels: np.ndarray


def read_labelled(
    path: Path, input_shape: tuple[int, int, int], num_classes: int, *, task: Task = SINGLE_LABEL
) -> LabelledData:
    """Read an .npz with `images` (uint8, NCHW or NHWC) and `labels` (integers).

    Raises:
        UsageError: If the file does not fit the model.

    Examples:
        >>> data = read_labelled(Path("examples/mnist/sample.npz"), (1, 32, 32), 10)
        >>> data.images.shape, data.labels.shape
        ((1000, 1, 32, 32), (1000,))
    """
    try:
        data = read_arrays(path)
        images, labels = data["images"], data["labels"]
    except (ValueError, KeyError) as error:
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
    if task != SINGLE_LABEL:
        return LabelledData(np.ascontiguousarray(images), _on_or_off(path, labels, len(images), num_classes))
    if not _are_classes(labels, len(images), num_classes):
        raise UsageError(
            f"The labels of {str(path)!r} do not fit: {labels.dtype} {labels.shape} for {len(images)} images, "
            f"{num_classes} classes.",
            "Give one class index per image, 0 for the first class.",
        )
    return LabelledData(np.ascontiguousarray(images), labels.reshape(-1).astype(np.int64))


def _are_classes(labels: np.ndarray, images: int, num_classes: int) -> bool:
    if labels.size != images or not images or labels.dtype.kind not in "iuf":
        return False
    return bool((labels == np.floor(labels)).all() and labels.min() >= 0 and labels.max() < num_classes)


def _on_or_off(path: Path, labels: np.ndarray, images: int, num_classes: int) -> np.ndarray:
    if labels.size != images * num_classes or not images or not np.isin(labels, (0, 1)).all():
        raise UsageError(
            f"The labels of {str(path)!r} do not fit: shape {labels.shape} for {images} images and "
            f"{num_classes} labels.",
            "Give 0 or 1 for every image and label.",
        )
    return labels.reshape(images, num_classes).astype(np.int64)
