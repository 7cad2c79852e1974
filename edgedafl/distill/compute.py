"""How a device is used: precision, compilation, and the wrapping for several processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgedafl.distill.world import World

__all__ = ["Compute"]

# Twice as fast for teachers of 19 and 41 million; the default's small ones were tuned in float32.
_PAYS_ON_CPU = 10_000_000


@dataclass(frozen=True)
class Compute:
    """Settings of a device.

    Attributes:
        device: `cpu` or `cuda`.
        low_precision: bfloat16 for convolutions and products; weights, losses and optimizers stay
            float32.
        compiled: torch.compile for the student's forward and backward pass.
        recorded: A CUDA graph for the student's whole step but the optimizer.
    """

    device: str = "cpu"
    low_precision: bool = False
    compiled: bool = False
    recorded: bool = False

    @classmethod
    def of(cls, device: torch.device | str, macs: int = 0) -> Compute:
        """The defaults of a device: bfloat16 where its instructions have it and it pays.

        CPUs without such instructions emulate them slowly, so it stays off there.

        Args:
            device: Where to train.
            macs: The teacher's multiply-accumulates per image; small teachers stay in float32 on CPUs.
        """
        kind = torch.device(device).type
        if kind != "cuda":
            return cls(kind, low_precision=macs >= _PAYS_ON_CPU and _cpu_has_bfloat16())
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        return cls(kind, low_precision=torch.cuda.is_bf16_supported(), recorded=True)

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


def _cpu_has_bfloat16() -> bool:
    ask: Callable[[], Mapping[str, bool | int | str]] = getattr(torch.cpu, "get_capabilities", dict)
    known = ask()  # older versions of PyTorch know nothing of it
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
