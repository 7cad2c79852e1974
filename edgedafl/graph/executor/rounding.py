"""Rounding whose gradient is the identity (straight-through estimator)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["straight_through"]


def straight_through(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Value of `function(x)`, gradient of `x` (Bengio et al., arXiv 1308.3432).

    Examples:
        >>> import torch
        >>> x = torch.tensor([0.4, 1.6], requires_grad=True)
        >>> straight_through(torch.round, x).sum().backward()
        >>> x.grad
        tensor([1., 1.])
    """
    return x + (function(x) - x).detach()
