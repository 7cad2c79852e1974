"""What an imported classifier must show before it is taken for a teacher."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgedafl.errors import UnsupportedModelError

__all__ = ["check_classifier", "check_gradient", "check_rows_alone", "is_distribution"]

_APART = 1e-2  # of the largest logit: what rounding of another batch size never makes


def check_gradient(name: str, images: Tensor, logits: Tensor) -> None:
    """Answers that vary while their gradient is zero everywhere cannot teach a generator.

    Examples:
        >>> import torch
        >>> images = torch.rand(2, 3, requires_grad=True)
        >>> check_gradient("model.onnx", images, 2 * images)
    """
    flat = logits.flatten(1)
    if flat.requires_grad:
        flat.square().sum().backward()
    varies = bool((flat - flat[:1]).abs().max() > 0)
    if varies and (images.grad is None or not bool(images.grad.abs().max() > 0)):
        raise UnsupportedModelError(
            f"{name} passes no gradient from its scores to its input.",
            "A rounding or comparison inside cuts it; use it as a black box: --access scores.",
        )


def check_rows_alone(name: str, together: Tensor, alone: Tensor) -> None:
    """Statistics of the batch inside a network make its answer to an image depend on the others.

    Examples:
        >>> import torch
        >>> logits = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
        >>> check_rows_alone("model.onnx", logits, logits)
    """
    first, alone = together[:1].detach(), alone.detach()
    if first.shape == alone.shape and not torch.allclose(first, alone, atol=_APART * float(together.abs().max())):
        raise UnsupportedModelError(
            f"{name} answers an image otherwise when others stand beside it: it computes statistics of the batch.",
            "Export it in inference mode, with the running statistics of its normalizations.",
        )


def check_classifier(name: str, logits: Tensor) -> None:
    """Refuse answers that are not one row of finite scores per image.

    Examples:
        >>> import torch
        >>> check_classifier("model.onnx", torch.zeros(2, 10))
    """
    wide = [side for side in logits.shape[1:] if side != 1]
    if len(wide) > 1:
        raise UnsupportedModelError(
            f"{name} answers an array of shape {tuple(logits.shape[1:])} per image; "
            "a classifier answers one row of scores.",
            "EdgeDAFL compresses image classifiers.",
        )
    if not torch.isfinite(logits).all():
        raise UnsupportedModelError(
            f"{name} answers NaN or infinity on ordinary images.",
            "Check the export; a float16 overflow is the usual cause.",
        )


def is_distribution(scores: np.ndarray) -> bool:
    """Whether rows of scores (N, K) are probabilities.

    Examples:
        >>> is_distribution(np.array([[0.2, 0.8]])), is_distribution(np.array([[1.0, 3.0]]))
        (True, False)
    """
    return bool((scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=1e-3))
