"""How a bundle is measured: the options that every `bench` understands."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgedafl.errors import UsageError

__all__ = ["BenchOptions"]

# Above the ten minutes that MLPerf's rules ask for, and above slow emulation.
_TIMEOUT = 900.0
_CPUS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


@dataclass(frozen=True)
class BenchOptions:
    """Of one measurement.

    Attributes:
        quick: 200 rounds and 3 s in one process instead of 1,024 rounds and 10 s in three; marked so.
        mlperf: MLPerf's single-stream rules: the bundle's own precision alone, 600 s.
        layers: Time every operator too, in a run of its own.
        threads: Intra-op threads.
        cpus: Cores to run on, like `4-7` or `0,2`; empty for all.
        processes: Over how many processes the samples are spread.
        timeout: Seconds until a measurement counts as failed.
        keep: Leave the bundle on the device.
    """

    quick: bool = False
    mlperf: bool = False
    layers: bool = False
    threads: int = 1
    cpus: str = ""
    processes: int = 3
    timeout: float = _TIMEOUT
    keep: bool = False

    def __post_init__(self) -> None:
        if self.quick and self.mlperf:
            raise UsageError("A measurement cannot be quick and follow MLPerf's rules.", "Choose one of the two.")
        if self.threads < 1 or self.processes < 1:
            raise UsageError("Threads and processes must be 1 or more.")
        if self.cpus and not _CPUS.fullmatch(self.cpus):
            raise UsageError(f"{self.cpus!r} is not a list of cores.", "Write it like 4-7 or 0,2.")

    def arguments(self) -> list[str]:
        """As the bundle's `bench` takes them."""
        flags = [name for name in ("quick", "mlperf", "layers") if getattr(self, name)]
        words = ["--threads", str(self.threads), *(f"--{flag}" for flag in flags)]
        if not self.quick and not self.mlperf:
            words += ["--processes", str(self.processes)]
        return [*words, *(["--cpus", self.cpus] if self.cpus else [])]
