"""How a device is used: precision, compilation, and the wrapping for several processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgedafl.distill.world import World

__all__ = ["Compute"]


@dataclass(frozen=True)
class Compute:
    """Settings of a device.

    Attributes:
        device: `cpu` or `cuda`.
        low_precision: bfloat16 for convolutions and products; weights, losses and optimizers stay
            float32.
        compiled: torch.compile for the student's step.
    """

    device: str = "cpu"
    low_precision: bool = False
    compiled: bool = False

    @classmethod
    def of(cls, device: torch.device | str) -> Compute:
        """The defaults of a device: bfloat16 where tensor cores have it, float32 on CPUs.

        CPUs without bfloat16 instructions emulate them slowly, so it stays off there.
        """
        kind = torch.device(device).type
        fast = kind == "cuda" and torch.cuda.is_bf16_supported()
        if kind == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        return cls(kind, low_precision=fast)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context in which networks run."""
        if not self.low_precision:
            return contextlib.nullcontext()
        return torch.autocast(self.device, torch.bfloat16)

    def trained(self, student: nn.Module, world: World) -> Callable[[Tensor], Tensor]:
        """The student as it is called in training: compiled, and averaging gradients over processes."""
        module: nn.Module = student
        if world.size > 1:
            places = [world.device.index] if world.device.type == "cuda" else None
            module = nn.parallel.DistributedDataParallel(student, device_ids=places)
        if self.compiled:
            compiled: Callable[[Tensor], Tensor] = torch.compile(module)
            return compiled
        return module
