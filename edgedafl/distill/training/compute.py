"""How a device is used: precision, compilation, and the wrapping for several processes."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgedafl.distill.distributed import DistributedContext

__all__ = ["Compute"]

# The default's small teachers were tuned in float32; for larger ones it is twice as fast on some processors.
_PAYS_ON_CPU = 10_000_000
_CHANNELS, _SIDE, _BATCH = 32, 16, 32  # of the convolution by which a processor is tried
_TRIES = 5


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
        """The defaults of a device: bfloat16 where it pays.

        CPUs without such instructions emulate them slowly, and some that have them are slower all the same: a
        short trial tells.

        Args:
            device: Where to train.
            macs: The teacher's multiply-accumulates per image; small teachers stay in float32 on CPUs.
        """
        kind = torch.device(device).type
        if kind != "cuda":
            return cls(kind, low_precision=macs >= _PAYS_ON_CPU and _cpu_has_bfloat16() and _bfloat16_pays())
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        return cls(kind, low_precision=torch.cuda.is_bf16_supported(), recorded=True)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context in which networks run.

        Rounded weights are not kept: a synthesizer changes its generator and asks it again in one context.
        """
        if not self.low_precision:
            return contextlib.nullcontext()
        return torch.autocast(self.device, torch.bfloat16, cache_enabled=False)

    def trained(self, student: nn.Module, world: DistributedContext) -> Callable[[Tensor], Tensor]:
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


@functools.cache
def _bfloat16_pays() -> bool:
    """Whether a convolution's two passes take less time in bfloat16 on this processor."""
    layer = nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.ones(_BATCH, _CHANNELS, _SIDE, _SIDE).to(memory_format=torch.channels_last)

    def seconds(low: bool) -> float:
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            found = layer(torch.relu(layer(images)))
        found.float().sum().backward()
        return time.perf_counter() - began

    seconds(True), seconds(False)  # the first calls choose kernels
    return min(seconds(True) for _ in range(_TRIES)) < min(seconds(False) for _ in range(_TRIES))
