"""The losses of data-free distillation.

`logits` are (N, K), or (N, labels, states) for binary and multi-label tasks (see `tasks.states`);
each label counts alike. `features` are (N, F).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "activation_loss",
    "balanced_classes",
    "distillation_loss",
    "entropy_share",
    "information_entropy_loss",
    "one_hot_loss",
]


_SINKHORN_ROUNDS = 5


def one_hot_loss(logits: Tensor, classes: Tensor | None = None) -> Tensor:
    """Cross-entropy with the teacher's own arg-max (DAFL eq. 2): images should look like a class.

    Args:
        logits: (N, ..., K).
        classes: Other classes to aim at, (N, ...).
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
    """
    return -features.abs().mean()


def information_entropy_loss(logits: Tensor, running: Tensor | None = None) -> Tensor:
    """Minus the entropy of the mean class probabilities, in bans (DAFL eq. 4).

    The logarithm has base 10 as in the authors' code: -1 for ten balanced classes, -2 for 100.

    Args:
        logits: (N, ..., K).
        running: A mean of earlier batches' probabilities (..., K), mixed in half and half where
            one batch is too small to show every class.
    """
    mean = torch.softmax(logits, -1).mean(0)
    mean = mean if running is None else 0.5 * (mean + running)
    return (mean * torch.log10(mean.clamp_min(1e-12))).sum(-1).mean()


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student), summed over classes, mean over images and labels, times T squared."""
    target = torch.log_softmax(teacher / temperature, -1)
    guess = torch.log_softmax(student / temperature, -1)
    loss = F.kl_div(guess, target, reduction="none", log_target=True).sum(-1).mean()
    return loss * temperature**2


def entropy_share(probabilities: Tensor) -> float:
    """Entropy of a distribution (K,) over its maximum, in [0, 1]."""
    p = probabilities.clamp_min(1e-12)
    return float(-(p * p.log()).sum() / math.log(len(p)))
