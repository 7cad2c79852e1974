"""The kinds of classification, and the one form that all losses take; the words for a classifier's interface.

A task is a set of *labels*, each in one of several *states*: single-label has one label with K
states, binary and multi-label have K labels with two states each. Written so, logits are
(N, labels, states) with a softmax over the last axis, and every loss, balance and agreement has a
single form. The DAFL paper's third experiment, a face attribute, is the binary case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "BINARY",
    "MULTI_LABEL",
    "SINGLE_LABEL",
    "TASKS",
    "Access",
    "Answers",
    "Layout",
    "Task",
    "agreement",
    "predictions",
    "states",
    "task_named",
]

Task = Literal["single-label", "binary", "multi-label"]
"""What a classifier's scores mean."""

Layout = Literal["NCHW", "NHWC"]
"""Where an interface has the channels of its images."""

Access = Literal["gradient", "scores", "labels"]
"""What of a teacher may be used: its gradients and scores, its scores, or its classes."""

Answers = Literal["logits", "probabilities", "log-probabilities", "sigmoid", "labels"]
"""What a teacher's own interface answers."""

SINGLE_LABEL: Final = "single-label"
BINARY: Final = "binary"
MULTI_LABEL: Final = "multi-label"
TASKS: tuple[Task, ...] = get_args(Task)


def task_named(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: If there is none.

    Examples:
        >>> task_named("binary")
        'binary'
    """
    for task in TASKS:
        if task == name:
            return task
    raise ValueError(f"{name!r} is not a task: {', '.join(TASKS)}")


def states(logits: Tensor, task: Task) -> Tensor:
    """Logits (N, K) as (N, K) for single-label, else as (N, K, 2): the label is off, or on.

    Examples:
        >>> import torch
        >>> states(torch.zeros(5, 3), "multi-label").shape
        torch.Size([5, 3, 2])
    """
    if task == SINGLE_LABEL:
        return logits
    import torch

    return torch.stack([torch.zeros_like(logits), logits], -1)


def predictions(logits: np.ndarray, task: Task) -> np.ndarray:
    """Classes (N,) for single-label, else which labels are on, (N, K) of 0 and 1.

    Examples:
        >>> predictions(np.array([[0.1, 2.0], [-1.0, -3.0]]), "single-label")
        array([1, 0])
        >>> predictions(np.array([[0.1, 2.0], [-1.0, -3.0]]), "multi-label")
        array([[1, 1],
               [0, 0]])
    """
    if task == SINGLE_LABEL:
        return np.asarray(logits.argmax(1))
    return np.asarray(logits > 0).astype(np.int64)


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Share of equal predictions, in [0, 1]; for several labels over all of them.

    Examples:
        >>> agreement(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 0]))
        0.75
    """
    return float((first.reshape(len(first), -1) == second.reshape(len(second), -1)).mean())
