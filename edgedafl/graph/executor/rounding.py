"""Rounding whose gradient is the identity (straight-through estimator)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["straight_through"]


def straight_through(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Value of `function(x)`, gradient of `x` (Bengio et al., arXiv 1308.3432)."""
    return x + (function(x) - x).detach()
