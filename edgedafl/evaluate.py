"""Accuracy on labelled data that the user gave for reporting. It never chooses anything."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgedafl.files.labelled_arrays import LabelledData
from edgedafl.preprocess import Preprocess
from edgedafl.tasks import SINGLE_LABEL, Task, agreement, predictions

__all__ = ["accuracy"]

_CHUNK = 500


def accuracy(
    data: LabelledData,
    preprocess: Preprocess,
    scores_of: Callable[[np.ndarray], np.ndarray],
    *,
    task: Task = SINGLE_LABEL,
) -> float:
    """Share of correct answers, in [0, 1], over all labels where there are several.

    Args:
        data: Images and labels.
        preprocess: From pixels to model space.
        scores_of: Logits (N, K) of float32 images in model space.
        task: See `tasks`.

    Examples:
        >>> from edgedafl.preprocess import Preprocess
        >>> data = LabelledData(np.zeros((4, 1, 8, 8), np.uint8), np.array([0, 0, 1, 0]))
        >>> always_zero = lambda images: np.tile([1.0, 0.0], (len(images), 1))
        >>> accuracy(data, Preprocess.from_range(0.0, 1.0, channels=1), always_zero)
        0.75
    """
    low = np.array(preprocess.low, np.float32).reshape(1, -1, 1, 1)
    high = np.array(preprocess.high, np.float32).reshape(1, -1, 1, 1)
    correct = 0.0
    for start in range(0, len(data.images), _CHUNK):
        pixels = data.images[start : start + _CHUNK].astype(np.float32)
        scores = scores_of(pixels * ((high - low) / 255) + low)
        labels = data.labels[start : start + _CHUNK]
        correct += agreement(predictions(scores, task), labels) * len(labels)
    return correct / len(data.images)
