"""Images that the teacher is sure of.

A classifier is sure of most images it was trained for and doubts procedural ones, and its last layers reach further
where it is sure: integer ranges taken from doubtful images can clip what real ones need. A few small steps along the
gradient of the one-hot loss (DAFL, arXiv 1904.01186, eq. 2) make an image clear to the teacher; more of them, or a
higher confidence, excite networks beyond what real images do (docs/experiments.md).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from edgedafl.distill.training.budget import rows_within_budget
from edgedafl.tasks import states
from edgedafl.teachers import Teacher
from edgedafl.teachers.base import images_at_once

__all__ = ["confident_images"]

_LOSS = -math.log(0.99)
_STEPS = 8
_STEP = 0.002  # root mean square of a pixel's move, as a share of what pixels span
_MOMENTUM = 0.9
# Multiply-accumulates that all steps may take: ten seconds on two cores.
_EFFORT = 6e11
_PASSES = 3  # forward and backward, in forward passes
_FEWEST = 16  # fewer images make no range


def confident_images(teacher: Teacher, images: Tensor) -> Tensor:
    """Images moved until the teacher gives its class a probability of 0.99, at most eight steps each.

    Args:
        teacher: Asked for gradients; of one that gives none, counts queries, or takes an unknown number of
            multiply-accumulates, the images come back as they are.
        images: (N,C,H,W) in model space, in the order of their use.

    Returns:
        As many as the teacher can move in about ten seconds; all of them, unmoved, where that is under sixteen.

    Examples:
        >>> from edgedafl.teachers import TeacherOptions, load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx", TeacherOptions(mean=(0.1307,), std=(0.3081,)))
        >>> grey = teacher.spec.preprocess.to_model(torch.full((2, 1, 32, 32), 0.5))
        >>> sure = confident_images(teacher, grey)
        >>> before, after = (torch.softmax(teacher.scores(own), 1).amax() for own in (grey, sure))
        >>> bool(after > before)
        True
    """
    spec = teacher.spec
    if spec.access != "gradient" or teacher.remaining is not None or not spec.macs:
        return images
    count = rows_within_budget(
        spec.macs, effort=_EFFORT / (_PASSES * _STEPS), fewest=0, most=len(images), device=teacher.device
    )
    if count < min(_FEWEST, len(images)):
        return images
    return torch.cat([_moved(teacher, part) for part in images[:count].split(images_at_once(spec.input_shape))])


def _moved(teacher: Teacher, images: Tensor) -> Tensor:
    """A few images, all moved until the last of them is sure; those that are stay where they are."""
    low, high = teacher.spec.preprocess.bounds(images)
    length = _STEP * math.sqrt(images[0].numel()) * (high - low)
    moved, speed = images.clone(), torch.zeros_like(images)
    classes: Tensor | None = None
    for _ in range(_STEPS):
        asked = moved.detach().to(teacher.device).requires_grad_()
        logits = states(teacher(asked).logits, teacher.spec.task)
        classes = logits.detach().argmax(-1) if classes is None else classes
        losses = _losses(logits, classes)
        doubtful = (losses.detach() > _LOSS).cpu()
        if not doubtful.any():
            break
        (gradient,) = torch.autograd.grad(losses.sum(), asked)
        gradient = gradient.cpu().nan_to_num() * (high - low)  # of pixels
        norm = gradient.flatten(1).norm(dim=1).clamp_min(1e-12).reshape(-1, 1, 1, 1)
        speed = _MOMENTUM * speed + gradient / norm
        moved[doubtful] = (moved - length * speed).clamp(low, high)[doubtful]
    return moved


def _losses(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of every image, the mean of its labels."""
    losses = F.cross_entropy(logits.flatten(0, -2), classes.flatten(), reduction="none")
    return losses.reshape(len(logits), -1).mean(1)
