"""From what a classifier's interface answers to logits."""

from __future__ import annotations

import numpy as np

from edgedafl.errors import UnsupportedModelError
from edgedafl.tasks import BINARY, MULTI_LABEL, SINGLE_LABEL, Answers, Task

__all__ = ["OUTPUTS", "are_labels", "as_labels", "guess_output", "guess_task", "to_logits"]

OUTPUTS = ("logits", "probabilities", "log-probabilities", "sigmoid", "labels")

_TINY = 1e-7
# What a bare label is taken for: sure, but not absolutely (label smoothing 0.1).
_SMOOTHING = 0.1


def are_labels(answers: np.ndarray) -> bool:
    """Whether whole numbers (N, K) say which class, or which labels are on; others are scores in whole numbers.

    Examples:
        >>> are_labels(np.array([[3], [7]])), are_labels(np.array([[10, 200], [30, 4]]))
        (True, False)
    """
    return answers.shape[1] == 1 or bool(np.isin(answers, (0, 1)).all())


def guess_output(scores: np.ndarray) -> Answers:
    """What scores (N, K) of several images look like: rows that sum to one are probabilities.

    Examples:
        >>> guess_output(np.array([[0.2, 0.8], [0.5, 0.5]])), guess_output(np.array([[-1.0, 3.0]]))
        ('probabilities', 'logits')
    """
    if scores.shape[1] > 1 and (scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=1e-3):
        return "probabilities"
    if scores.shape[1] > 1 and (scores <= 0).all() and np.allclose(np.exp(scores).sum(1), 1, atol=1e-3):
        return "log-probabilities"
    return "logits"


def guess_task(output: Answers, classes: int) -> Task:
    """One score is binary; sigmoids over several are multi-label; all else is single-label.

    Examples:
        >>> guess_task("sigmoid", 5), guess_task("logits", 1)
        ('multi-label', 'binary')
    """
    if classes == 1:
        return BINARY
    return MULTI_LABEL if output == "sigmoid" else SINGLE_LABEL


def to_logits(answers: np.ndarray, output: Answers, task: Task, classes: int) -> np.ndarray:
    """Logits (N, K) from answers (N, K), or (N,) and (N, 1) of class indices for `labels`.

    Probabilities are taken back through the logarithm; the constant that softmax forgets is set so
    that each row has mean 0.

    Raises:
        UnsupportedModelError: If an answer is NaN, or a label is out of range.

    Examples:
        >>> to_logits(np.array([[0.5, 0.25, 0.25]]), "probabilities", "single-label", 3).round(3)
        array([[ 0.462, -0.231, -0.231]], dtype=float32)
    """
    if not np.isfinite(answers).all() and output not in ("log-probabilities",):
        raise UnsupportedModelError(
            "The teacher answered NaN or infinity.", "Check the input range, and the teacher itself on that image."
        )
    if output == "labels":
        return _from_labels(answers, task, classes)
    values = np.asarray(answers, np.float32)
    if output == "sigmoid":
        share = np.clip(values, _TINY, 1 - _TINY)
        return np.asarray(np.log(share / (1 - share)), np.float32)
    if output in ("probabilities", "log-probabilities"):
        logs = np.log(np.maximum(values, _TINY)) if output == "probabilities" else np.maximum(values, np.log(_TINY))
        return np.asarray(logs - logs.mean(1, keepdims=True), np.float32)
    return values


def _from_labels(answers: np.ndarray, task: Task, classes: int) -> np.ndarray:
    if task != SINGLE_LABEL:
        sure = np.log((1 - _SMOOTHING / 2) / (_SMOOTHING / 2))
        return np.asarray(np.where(answers.reshape(len(answers), -1) > 0.5, sure, -sure), np.float32)
    labels = answers.reshape(len(answers), -1)[:, 0].astype(np.int64)
    if labels.min() < 0 or labels.max() >= classes:
        raise UnsupportedModelError(
            f"The teacher answered the label {int(labels.max())}; there are {classes} classes.",
            "Give the number of classes with --classes.",
        )
    share = np.full((len(labels), classes), _SMOOTHING / max(classes - 1, 1), np.float32)
    share[np.arange(len(labels)), labels] = 1 - _SMOOTHING
    logs = np.log(share)
    return np.asarray(logs - logs.mean(1, keepdims=True), np.float32)


def as_labels(logits: np.ndarray, task: Task) -> np.ndarray:
    """What remains of logits (N, K) when a teacher shows labels only; as `to_logits` gives them.

    Examples:
        >>> as_labels(np.array([[0.3, 2.0]]), "single-label").round(3)  # sure of the second class, not absolutely
        array([[-1.099,  1.099]], dtype=float32)
    """
    classes = logits.shape[1]
    if task == SINGLE_LABEL:
        return _from_labels(logits.argmax(1), task, classes)
    return _from_labels(logits > 0, task, classes)
