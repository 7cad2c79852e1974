"""What the user's own images say of how a teacher is fed: labelled ones decide, others tell the likelier way."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from edgedafl.errors import UsageError
from edgedafl.files.labelled import LabelledSource
from edgedafl.files.labelled_arrays import LabelledData
from edgedafl.files.pictures import Pictures
from edgedafl.preprocess import CONVENTIONS, Preprocess
from edgedafl.tasks import SINGLE_LABEL
from edgedafl.teachers import Teacher

__all__ = ["check_input", "look_at_pictures"]

_MOST = 200
_FEWEST = 20
_DEVIATIONS = 3.0
_CLEARLY = 0.1
_MOSTLY = 0.5  # of the labels fit after a renumbering that is worth a word; chance alone fits fewer
_CHUNK = 32
_PICTURES = 100
_STEADIER = 0.05  # of the answers: on nine classifiers the right map led the others by 0 to 0.5
_SHIFT = 1 / 16  # of a side


def check_input(teacher: Teacher, labelled: LabelledSource) -> None:
    """Look whether a teacher knows labelled images as they are fed to it.

    Where neither the user nor the model says what range pixels go in, the one that fits the labels best is taken.
    Labels decide nothing else. Classes that are not the teacher's, in another order, are noticed.

    Args:
        teacher: The teacher; asked about at most 200 images, for each range that is tried.
        labelled: The user's.

    Raises:
        UsageError: If it is at chance.

    Examples:
        >>> from pathlib import Path
        >>> from edgedafl.files.labelled import LabelledSource
        >>> from edgedafl.teachers import TeacherOptions, load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx", TeacherOptions(mean=(0.1307,), std=(0.3081,)))
        >>> check_input(teacher, LabelledSource(Path("examples/mnist/sample.npz")))
    """
    spec = teacher.spec
    if teacher.max_queries is not None or spec.task != SINGLE_LABEL:
        return
    data = labelled.read(spec.input_shape, spec.num_classes, task=spec.task)
    some = np.random.default_rng(0).permutation(len(data.labels))[:_MOST]
    if len(some) < _FEWEST:
        return
    data = LabelledData(data.images[some], data.labels[some])
    if spec.preprocess.is_guess:
        _take_best(teacher, data)
    preprocess = teacher.spec.preprocess
    answers = _answers(teacher, data, preprocess)
    if not _is_chance(answers, data.labels):
        return
    found = float((answers == data.labels).mean())
    assumed = f"{preprocess.low[0]:.4g} to {preprocess.high[0]:.4g} ({preprocess.origin})"
    raise UsageError(
        f"The teacher answers {100 * found:.1f} % of {len(some)} images of {str(labelled.path)!r} correctly, which is "
        f"chance, fed pixels as {assumed}.",
        _advice(teacher, data, answers),
    )


def look_at_pictures(teacher: Teacher, pictures: Pictures) -> None:
    """Where the pixel range is not declared, take the map under which the answers to the user's pictures are steadiest.

    Steady is a teacher that gives a picture and the same picture, moved by a sixteenth of its side, one class, beyond
    what chance alone would give. It stays a guess, and is said to be one.

    Args:
        teacher: The teacher; asked about at most 100 pictures twice, for each map that is tried.
        pictures: The user's; fewer than 20 tell nothing.

    Examples:
        >>> from pathlib import Path
        >>> from edgedafl.files.pictures import read_pictures
        >>> from edgedafl.teachers import load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx")
        >>> look_at_pictures(teacher, read_pictures(Path("examples/mnist/sample.npz"), (1, 32, 32)))
        >>> teacher.spec.preprocess.origin
        'guessed: 0 to 255, the answers to your pictures are steadiest'
    """
    spec = teacher.spec
    if not spec.preprocess.is_guess or teacher.max_queries is not None or spec.task != SINGLE_LABEL:
        return
    if len(pictures.images) < _FEWEST:
        return
    some = np.random.default_rng(0).permutation(len(pictures.images))[:_PICTURES]
    pixels = _middles(pictures.images[some], spec.input_shape)
    today = _steadiness(teacher, pixels, spec.preprocess)
    others = {n: _steadiness(teacher, pixels, known) for n, known in Preprocess.common(spec.input_shape[0]).items()}
    best = max(others, key=lambda name: others[name])
    if others[best] > today + _STEADIER:
        origin = f"guessed: {CONVENTIONS[best]}, the answers to your pictures are steadiest"
        teacher.spec = replace(spec, preprocess=Preprocess.named(best, spec.input_shape[0], origin))


def _middles(pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    top, left = ((side - wanted) // 2 for side, wanted in zip(pixels.shape[2:], shape[1:], strict=True))
    return pixels[:, :, top : top + shape[1], left : left + shape[2]]


def _steadiness(teacher: Teacher, pixels: np.ndarray, preprocess: Preprocess) -> float:
    """Share of pictures that keep their class when they are moved, less what two random ones share."""
    height, width = pixels.shape[2:]
    down, across = (max(1, round(side * _SHIFT)) for side in (height, width))
    padded = np.pad(pixels, ((0, 0), (0, 0), (0, down), (across, 0)), mode="reflect")
    moved = np.ascontiguousarray(padded[:, :, down:, :width])
    first, second = (_answers(teacher, LabelledData(images, np.zeros(0)), preprocess) for images in (pixels, moved))
    shares = np.bincount(first) / len(first)
    return float((first == second).mean() - (shares**2).sum())


def _take_best(teacher: Teacher, data: LabelledData) -> None:
    """Feed the teacher as fits the labels best."""
    today = teacher.spec.preprocess
    found, others = _accuracy(teacher, data, today), _common_accuracies(teacher, data)
    caffe = others.pop("caffe", 0.0)
    best = max(others, key=lambda name: others[name])
    if caffe > max(found, others[best]) + _CLEARLY:
        raise UsageError(
            f"The labels fit best if blue goes first, less ImageNet's mean ({caffe:.1%}, else {others[best]:.1%}).",
            "Say it: --preprocess caffe.",
        )
    known = replace(today, origin="found: fits the labels best")
    if others[best] > found:
        origin = f"found: {CONVENTIONS[best]}, fits the labels best ({others[best]:.1%} against {found:.1%})"
        known = Preprocess.named(best, teacher.spec.input_shape[0], origin)
    teacher.spec = replace(teacher.spec, preprocess=known)


def _advice(teacher: Teacher, data: LabelledData, answers: np.ndarray) -> str:
    found, others = float((answers == data.labels).mean()), _common_accuracies(teacher, data)
    best = max(others, key=lambda name: others[name])
    renumbered = _permuted(answers, data.labels, teacher.spec.num_classes)
    if renumbered > max(_MOSTLY, others[best], found + _CLEARLY):
        return "The labels fit after another numbering of the classes: bring them into the teacher's order."
    if others[best] > found + _CLEARLY:
        return f"--preprocess {best} fits the labels best ({100 * others[best]:.1f} %)."
    return "Check the labels, and --preprocess, --input-mean/--input-std or --input-range."


def _common_accuracies(teacher: Teacher, data: LabelledData) -> dict[str, float]:
    """Accuracy by the name of each common map; blue goes first where only that map wants it."""
    channels = teacher.spec.input_shape[0]
    common = Preprocess.common(channels)
    found = {name: _accuracy(teacher, data, known) for name, known in common.items()}
    if channels == 3:
        caffe = Preprocess.named("caffe", channels)
        turned = Preprocess(caffe.low[::-1], caffe.high[::-1])
        found["caffe"] = _accuracy(teacher, LabelledData(data.images[:, ::-1].copy(), data.labels), turned)
    return found


def _accuracy(teacher: Teacher, data: LabelledData, preprocess: Preprocess) -> float:
    return float((_answers(teacher, data, preprocess) == data.labels).mean())


def _answers(teacher: Teacher, data: LabelledData, preprocess: Preprocess) -> np.ndarray:
    images = preprocess.from_pixels(torch.from_numpy(data.images))
    answers: np.ndarray = torch.cat([teacher.scores(part) for part in images.split(_CHUNK)]).argmax(1).numpy()
    return answers


def _is_chance(answers: np.ndarray, labels: np.ndarray) -> bool:
    """Whether the mean over classes of the share answered right is what blind answers reach.

    Always naming the most frequent class is blind, too, however often it is right.
    """
    shares = [(answers[labels == label] == label).mean() for label in np.unique(labels)]
    counts = np.array([(labels == label).sum() for label in np.unique(labels)])
    blind = 1 / len(shares)
    deviation = math.sqrt((blind * (1 - blind) / counts).sum()) / len(shares)
    limit = blind + _DEVIATIONS * deviation
    return bool(np.mean(shares) <= limit < 1)  # of a class with one image nothing can be said


def _permuted(answers: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Accuracy after renumbering the classes so that most labels fit, the commonest pairs first."""
    counts = np.zeros((classes, classes))
    np.add.at(counts, (answers, labels), 1)
    right = 0.0
    for _ in range(classes):
        row, column = np.unravel_index(counts.argmax(), counts.shape)
        right += counts[row, column]
        counts[row], counts[:, column] = -1, -1
    return right / len(labels)
