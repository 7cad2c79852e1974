"""Several processes that distill one student together, started by `torchrun`.

Every process has its own codes, its own part of the pool and its own student batches. Gradients
are averaged, so that all hold the same weights, and what must be judged over all images at once
(class balance, batch statistics of the generator) is summed over processes with gradients flowing
through the sum.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgedafl.errors import EnvironmentMissingError

__all__ = ["DistributedContext", "convert_sync_batchnorm", "init_distributed"]


@dataclass(frozen=True)
class DistributedContext:
    """This process among all.

    Attributes:
        rank: Number of this process; 0 reports and saves.
        size: How many there are.
        device: Where this process trains.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_main_process(self) -> bool:
        """Whether this process reports and saves."""
        return self.rank == 0

    def all_reduce_mean(self, value: Tensor) -> Tensor:
        """Mean over processes; gradients flow to every process's share."""
        if self.size == 1:
            return value
        return _summed(value) / self.size

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make every process's gradients the mean of all, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return
        flat = torch.cat([g.reshape(-1) for g in gradients])
        torch.distributed.all_reduce(flat)
        for gradient, part in zip(gradients, (flat / self.size).split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def broadcast_parameters(self, module: nn.Module) -> None:
        """Give all processes the first one's weights and buffers."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                torch.distributed.broadcast(tensor, 0)

    def broadcast(self, *values: float) -> tuple[float, ...]:
        """The first process's numbers: clocks differ, decisions must not."""
        if self.size == 1:
            return values
        box = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(box, 0)
        return tuple(box.tolist())

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, on the first process; elsewhere an empty list."""
        if self.size == 1:
            return [value]
        found: list[Any] | None = [None] * self.size if self.is_main_process else None
        torch.distributed.gather_object(value, found)
        return found or []


def init_distributed(accelerator: str = "auto") -> DistributedContext:
    """The world of this process: all those that `torchrun` started, or it alone.

    Args:
        accelerator: `cpu`, `cuda`, or `auto`: a GPU where there is one.

    Raises:
        EnvironmentMissingError: If a GPU is asked for and there is none for this process.

    Examples:
        >>> world = init_distributed("cpu")
        >>> world.rank, world.size, str(world.device)
        (0, 1, 'cpu')
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    found = torch.cuda.is_available()
    kind = accelerator if accelerator != "auto" else "cuda" if found else "cpu"
    if kind == "cuda" and not found:
        raise EnvironmentMissingError(
            "There is no CUDA device that this PyTorch can use.",
            "Train on the CPU with --accelerator cpu, or install a CUDA build of PyTorch.",
        )
    if size == 1:
        return DistributedContext(device=torch.device(kind))
    rank, place = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if kind == "cuda":
        if place >= torch.cuda.device_count():
            raise EnvironmentMissingError(
                f"Process {rank} wants GPU {place}; this machine has {torch.cuda.device_count()}.",
                "Start as many processes per machine as it has GPUs: torchrun --nproc-per-node.",
            )
        torch.cuda.set_device(place)
    where = torch.device("cuda", place) if kind == "cuda" else torch.device("cpu")
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    return DistributedContext(rank, size, where)


def convert_sync_batchnorm(module: nn.Module, world: DistributedContext) -> nn.Module:
    """The module with batch statistics over all processes; unchanged for one process.

    Examples:
        >>> module = nn.BatchNorm2d(4)
        >>> convert_sync_batchnorm(module, init_distributed("cpu")) is module
        True
    """
    if world.size == 1:
        return module
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, _SharedBatchNorm(child))
        else:
            convert_sync_batchnorm(child, world)
    return module


def _summed(value: Tensor) -> Tensor:
    """All-reduce whose gradient is an all-reduce as well."""
    from torch.distributed.nn.functional import all_reduce

    total: Tensor = all_reduce(value.clone())
    return total


class _SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm with statistics over all processes, on any device (torch's own needs CUDA)."""

    def __init__(self, source: nn.BatchNorm2d) -> None:
        super().__init__(source.num_features, source.eps, source.momentum, source.affine)
        self.load_state_dict(source.state_dict())
        self.to(next((t.device for t in source.state_dict().values()), torch.device("cpu")))

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        size = torch.distributed.get_world_size()
        moments = torch.stack([input.mean((0, 2, 3)), input.square().mean((0, 2, 3))])
        mean, square = (_summed(moments) / size).unbind(0)
        var = square - mean.square()
        self._track(mean.detach(), var.detach(), input.numel() // input.shape[1] * size)
        scale = torch.rsqrt(var + self.eps)
        normal: Tensor = (input - mean.reshape(1, -1, 1, 1)) * scale.reshape(1, -1, 1, 1)
        if not self.affine:
            return normal
        return normal * self.weight.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        momentum = self.momentum if self.momentum is not None else 0.1
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var * count / max(1, count - 1), momentum)
