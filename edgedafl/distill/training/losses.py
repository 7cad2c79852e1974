"""The losses of data-free distillation.

`logits` are (N, K), or (N, labels, states) for binary and multi-label tasks (see `tasks.states`);
each label counts alike. `features` are (N, F).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from edgedafl.distill.distributed import DistributedContext
from edgedafl.teachers.base import BatchNormStatistics

__all__ = [
    "activation_loss",
    "balanced_classes",
    "batch_norm_loss",
    "distillation_loss",
    "entropy_share",
    "information_entropy_loss",
    "jensen_shannon",
    "moments_loss",
    "moments_of",
    "one_hot_loss",
    "shared_disagreement",
    "total_variation",
]


_SINKHORN_ROUNDS = 5
_TINY = 1e-20  # a root has no slope at zero


def one_hot_loss(logits: Tensor, classes: Tensor | None = None) -> Tensor:
    """Cross-entropy with the teacher's own arg-max (DAFL eq. 2): images should look like a class.

    Args:
        logits: (N, ..., K).
        classes: Other classes to aim at, (N, ...).

    Examples:
        >>> import torch
        >>> round(float(one_hot_loss(torch.tensor([[4.0, 0.0], [0.0, 0.0]]))), 3)  # a sure answer and a doubtful one
        0.356
    """
    chosen = logits.detach().argmax(-1) if classes is None else classes
    return F.cross_entropy(logits.flatten(0, -2), chosen.flatten())


def balanced_classes(logits: Tensor) -> Tensor:
    """A class for every image, each class about equally often, close to the teacher's answers.

    With arg-max labels a class that is rarely first gets few clear images, though the entropy of
    the mean may be high. Rows and columns of the probabilities are normalised in turn
    (Sinkhorn-Knopp), then the largest entry of each row is taken.

    Args:
        logits: (N, ..., K).

    Examples:
        >>> import torch
        >>> balanced_classes(torch.tensor([[3.0, 0.0], [2.0, 1.9], [3.0, 0.5], [2.0, 1.8]]))
        tensor([0, 1, 0, 1])
    """
    share = torch.softmax(logits.detach(), -1)
    for _ in range(_SINKHORN_ROUNDS):
        share = share / share.sum(0, keepdim=True).clamp_min(1e-9)
        share = share / share.sum(-1, keepdim=True).clamp_min(1e-9)
    return share.argmax(-1)


def activation_loss(features: Tensor) -> Tensor:
    """Minus the mean magnitude of the penultimate features (DAFL eq. 3).

    The paper writes a norm per image; the authors' code, whose weights everybody uses, takes the
    mean over batch and features.

    Examples:
        >>> import torch
        >>> activation_loss(torch.tensor([[1.0, -3.0]]))
        tensor(-2.)
    """
    return -features.abs().mean()


def batch_norm_loss(statistics: Sequence[BatchNormStatistics]) -> Tensor:
    """How far a batch is from the data a BatchNorm teacher was trained on (DeepInversion, eq. 4).

    The L2 norms (not squared) of the differences of means and of variances, summed over layers.

    Args:
        statistics: Of every BatchNorm layer on the batch; at least one.

    Examples:
        >>> import torch
        >>> at = BatchNormStatistics(torch.zeros(2), torch.ones(2), torch.tensor([3.0, 4.0]), torch.ones(2))
        >>> batch_norm_loss([at])
        tensor(5.)
    """
    return moments_loss(moments_of(statistics), statistics)


def moments_of(statistics: Sequence[BatchNormStatistics]) -> Tensor:
    """Means and variances of a batch side by side, every layer's after those of the one before, (2 * channels,).

    Examples:
        >>> import torch
        >>> at = BatchNormStatistics(torch.zeros(2), torch.ones(2), torch.tensor([3.0, 4.0]), torch.ones(2))
        >>> moments_of([at])
        tensor([0., 0., 1., 1.])
    """
    return torch.cat([moment for layer in statistics for moment in (layer.mean, layer.var)])


def moments_loss(moments: Tensor, statistics: Sequence[BatchNormStatistics]) -> Tensor:
    """`batch_norm_loss` of other moments than the batch's own; few large operations instead of many small ones.

    Args:
        moments: As `moments_of` gives them.
        statistics: Of the layers, for what is stored in them.

    Examples:
        >>> import torch
        >>> at = BatchNormStatistics(torch.zeros(2), torch.ones(2), torch.tensor([3.0, 4.0]), torch.ones(2))
        >>> bool(torch.isclose(moments_loss(moments_of([at]), [at]), batch_norm_loss([at])))
        True
    """
    running = torch.cat([moment for layer in statistics for moment in (layer.running_mean, layer.running_var)])
    channels = [len(layer.mean) for layer in statistics]
    places = _layer_of_each(tuple(channels), moments.device)
    sums = moments.new_zeros(2 * len(channels)).index_add(0, places, (moments - running).square())
    return (sums + _TINY).sqrt().sum()


@functools.lru_cache(maxsize=64)
def _layer_of_each(channels: tuple[int, ...], device: torch.device) -> Tensor:
    """Number of the sum that every moment belongs to."""
    halves = torch.tensor([count for count in channels for _ in range(2)])
    return torch.repeat_interleave(torch.arange(len(halves)), halves).to(device)


def information_entropy_loss(
    logits: Tensor, running: Tensor | None = None, world: DistributedContext | None = None
) -> Tensor:
    """Minus the entropy of the mean class probabilities, in bans (DAFL eq. 4).

    The logarithm has base 10 as in the authors' code: -1 for ten balanced classes, -2 for 100.

    Args:
        logits: (N, ..., K).
        running: A mean of earlier batches' probabilities (..., K), mixed in half and half where
            one batch is too small to show every class.
        world: The processes over whose images the mean is taken.

    Examples:
        >>> import torch
        >>> round(float(information_entropy_loss(20 * torch.eye(10))), 3)  # ten images, one of each class
        -1.0
    """
    mean = torch.softmax(logits, -1).mean(0)
    mean = mean if world is None else world.all_reduce_mean(mean)
    mean = mean if running is None else 0.5 * (mean + running)
    return (mean * torch.log10(mean.clamp_min(1e-12))).sum(-1).mean()


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student), summed over classes, mean over images and labels, times T squared.

    Examples:
        >>> import torch
        >>> answers = torch.tensor([[2.0, 0.0]])
        >>> float(distillation_loss(answers, answers)), round(float(distillation_loss(-answers, answers, 4.0)), 3)
        (0.0, 1.959)
    """
    target = torch.log_softmax(teacher / temperature, -1)
    guess = torch.log_softmax(student / temperature, -1)
    loss = F.kl_div(guess, target, reduction="none", log_target=True).sum(-1).mean()
    return loss * temperature**2


def shared_disagreement(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) at temperature 1, only where both give the same class.

    The decision-adversarial term of CMI and Fast-DFKD: images should be hard for the student, yet
    not such that it is wrong about them, which noise would be as well.

    Args:
        student: (N, ..., K).
        teacher: (N, ..., K).

    Examples:
        >>> import torch
        >>> student, teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [3.0, 0.0]])
        >>> bool(shared_disagreement(student, teacher) > 0), float(shared_disagreement(student[1:], teacher[1:]))
        (True, 0.0)
    """
    target, guess = torch.log_softmax(teacher, -1), torch.log_softmax(student, -1)
    same = (student.argmax(-1) == teacher.argmax(-1)).float()
    return (F.kl_div(guess, target, reduction="none", log_target=True).sum(-1) * same).mean()


def jensen_shannon(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Jensen-Shannon divergence at a temperature, mean over images; in [0, ln 2] (DeepInversion, eq. 8).

    Examples:
        >>> import torch
        >>> one, other = torch.tensor([[50.0, 0.0]]), torch.tensor([[0.0, 50.0]])
        >>> round(float(jensen_shannon(one, other, 1.0)), 3)  # of probabilities that are kept within 0.01 and 0.99
        0.637
    """
    p = torch.softmax(student / temperature, -1).clamp(0.01, 0.99)
    q = torch.softmax(teacher / temperature, -1).clamp(0.01, 0.99)
    middle = ((p + q) / 2).clamp(0.01, 0.99).log()
    halves = (F.kl_div(middle, r, reduction="none").sum(-1).mean() for r in (p, q))
    return 0.5 * sum(halves, torch.zeros_like(middle[..., 0].mean()))


def total_variation(images: Tensor) -> Tensor:
    """L2 norm of the differences between neighbouring pixels (N,C,H,W), summed over four directions.

    Examples:
        >>> import torch
        >>> diagonal = torch.eye(4).reshape(1, 1, 4, 4)
        >>> float(total_variation(0 * diagonal)), round(float(total_variation(diagonal)), 2)
        (0.0, 6.9)
    """
    steps = (
        images[:, :, :, 1:] - images[:, :, :, :-1],
        images[:, :, 1:] - images[:, :, :-1],
        images[:, :, 1:, 1:] - images[:, :, :-1, :-1],
        images[:, :, 1:, :-1] - images[:, :, :-1, 1:],
    )
    return torch.stack([step.norm() for step in steps]).sum()


def entropy_share(probabilities: Tensor) -> float:
    """Entropy of a distribution (K,) over its maximum, in [0, 1].

    Examples:
        >>> import torch
        >>> uniform, certain = torch.full((4,), 0.25), torch.tensor([1.0, 0.0])
        >>> round(entropy_share(uniform), 6), round(entropy_share(certain), 6)
        (1.0, 0.0)
    """
    p = probabilities.clamp_min(1e-12)
    return float(-(p * p.log()).sum() / math.log(len(p)))
