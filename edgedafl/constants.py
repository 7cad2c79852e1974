"""Numbers known beforehand, as tensors beside others."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["constant"]


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """A vector with the type and device of `like`; not to be written to.

    An accelerator gets it once: every copy from the host waits for all that it has to do.

    Examples:
        >>> import torch
        >>> constant((0.5, 0.25), torch.zeros(1, dtype=torch.float64))
        tensor([0.5000, 0.2500], dtype=torch.float64)
    """
    return like.new_tensor(values) if like.device.type == "cpu" else _placed(values, like.dtype, like.device)


@functools.lru_cache(maxsize=256)
def _placed(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    import torch

    return torch.tensor(values, dtype=dtype, device=device)
