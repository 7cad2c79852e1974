"""A teacher at chance on the user's own labelled images is fed in the wrong way."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from edgedafl.errors import UsageError
from edgedafl.evaluate import LabelledData, accuracy, read_labelled
from edgedafl.preprocess import Preprocess
from edgedafl.tasks import SINGLE_LABEL
from edgedafl.teachers import Teacher

__all__ = ["check_input"]

_MOST = 200
_FEWEST = 20
_DEVIATIONS = 3.0
_CLEARLY = 0.1
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def check_input(teacher: Teacher, labelled: Path) -> None:
    """Refuse a teacher that does no better than chance on labelled images as they are fed to it.

    Labels decide nothing else: the range that fits them best is named, not taken.

    Args:
        teacher: The teacher; asked about at most 200 images.
        labelled: The user's .npz.

    Raises:
        UsageError: If it is at chance.
    """
    spec = teacher.spec
    if teacher.max_queries is not None or spec.task != SINGLE_LABEL:
        return
    data = read_labelled(labelled, spec.input_shape, spec.num_classes, task=spec.task)
    some = np.random.default_rng(0).permutation(len(data.labels))[:_MOST]
    if len(some) < _FEWEST:
        return
    data = LabelledData(data.images[some], data.labels[some])
    found = _accuracy(teacher, data, spec.preprocess)
    # Always naming the most frequent class is chance as well.
    most = np.bincount(data.labels).max() / len(data.labels)
    chance = max(1 / spec.num_classes, float(most))
    if found > chance + _DEVIATIONS * math.sqrt(chance * (1 - chance) / len(some)):
        return
    others = {name: _accuracy(teacher, data, other) for name, other in _candidates(spec.input_shape[0]).items()}
    best = max(others, key=lambda name: others[name])
    assumed = f"{spec.preprocess.low[0]:.4g} to {spec.preprocess.high[0]:.4g} ({spec.preprocess.origin})"
    hint = "Check the labels and --input-mean/--input-std or --input-range."
    if others[best] > found + _CLEARLY:
        hint = f"{best} fits the labels best ({100 * others[best]:.1f} %)."
    raise UsageError(
        f"The teacher answers {100 * found:.1f} % of {len(some)} images of {str(labelled)!r} correctly, which is "
        f"chance, fed pixels as {assumed}.",
        hint,
    )


def _accuracy(teacher: Teacher, data: LabelledData, preprocess: Preprocess) -> float:
    def scores_of(images: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(images).split(32)
        return torch.cat([teacher.scores(part) for part in parts]).numpy()

    return accuracy(data, preprocess, scores_of, task=teacher.spec.task)


def _candidates(channels: int) -> dict[str, Preprocess]:
    ranges = {"0,1": (0.0, 1.0), "-1,1": (-1.0, 1.0), "0,255": (0.0, 255.0)}
    found = {f"--input-range {text}": Preprocess.from_range(*ends, channels) for text, ends in ranges.items()}
    if channels == 3:
        text = "--input-mean 0.485,0.456,0.406 --input-std 0.229,0.224,0.225"
        found[text] = Preprocess.from_mean_std(*_IMAGENET, channels)
    return found
