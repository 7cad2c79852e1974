"""How a device is used: precision, compilation, and the wrapping for several processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from edgedafl.distill.graphed import GraphedFunction, graphed_student
from edgedafl.distill.world import World

__all__ = ["Compute"]

# Twice as fast for teachers of 19 and 41 million; the default's small ones were tuned in float32.
_PAYS_ON_CPU = 10_000_000
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Compute:
    """Settings of a device.

    Attributes:
        device: `cpu` or `cuda`.
        low_precision: bfloat16 for convolutions and products; weights, losses and optimizers stay
            float32.
        compiled: torch.compile for the student's step.
        graphed: CUDA graphs for the student's step and the teacher's answers to it.
    """

    device: str = "cpu"
    low_precision: bool = False
    compiled: bool = False
    graphed: bool = False

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
        return cls(kind, low_precision=torch.cuda.is_bf16_supported(), graphed=True)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context in which networks run."""
        if not self.low_precision:
            return contextlib.nullcontext()
        return torch.autocast(self.device, torch.bfloat16)

    def trained(self, student: nn.Module, world: World, images: Tensor) -> Callable[[Tensor], Tensor]:
        """The student as it is called in training: compiled or recorded, and averaging gradients over processes.

        Args:
            student: On its device, in training mode.
            world: The processes that train together.
            images: Of the shape and layout of its batches.
        """
        module: nn.Module = student
        if world.size > 1:
            places = [world.device.index] if world.device.type == "cuda" else None
            module = nn.parallel.DistributedDataParallel(student, device_ids=places)
        if self.compiled:
            compiled: Callable[[Tensor], Tensor] = torch.compile(module)
            return compiled
        if self.graphed and world.size == 1:
            return graphed_student(module, images, low_precision=self.low_precision)
        return module

    def answering(self, function: Callable[[Tensor], _Answer]) -> Callable[[Tensor], _Answer]:
        """What asks the teacher about the student's batches, recorded where that is done."""
        return GraphedFunction(function) if self.graphed else function


def _cpu_has_bfloat16() -> bool:
    ask: Callable[[], Mapping[str, bool | int | str]] = getattr(torch.cpu, "get_capabilities", dict)
    known = ask()  # older versions of PyTorch know nothing of it
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
