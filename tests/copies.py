"""Tensors without data, as a stand-in for a GPU: they tell what moves between a host and its device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")


class NoCopies(TorchDispatchMode):
    """Notes every operation that reads a device's value on the host, or a host's on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        flat = [x for arg in args for x in (arg if isinstance(arg, list | tuple) else [arg])]
        given = {x.device for x in flat if isinstance(x, Tensor)}
        made = {result.device} if isinstance(result, Tensor) else set()
        if "local_scalar" in str(func) or len(given | made) > 1:
            self.found.append(str(func))
        return result


def copies(call: Callable[[], object]) -> list[str]:
    """Of the second call; the first may place constants."""
    call()
    with NoCopies() as watch:
        call()
    return watch.found
