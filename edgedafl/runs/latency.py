"""Latency as a run records it: measured on a device, or estimated for a target."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "EMULATED",
    "AnswerCheck",
    "Environment",
    "Estimate",
    "LatencySummary",
    "LayerTime",
    "MeasuredLatency",
    "Recommendation",
]

EMULATED = "emulated"
"""Kind of measurements whose times say nothing about a device's speed."""


@dataclass(frozen=True)
class LatencySummary:
    """All times in nanoseconds.

    Attributes:
        count: How many samples.
        minimum: The fastest.
        median: p50, the headline.
        p90: None below 64 samples.
        p99: None below 662 samples.
        mean: Arithmetic mean.
        variation: Standard deviation over mean.
        median_low: Lower end of the 95 % bootstrap interval of the median.
        median_high: Upper end.
        drift: Median of the last third over that of the first, minus 1.
    """

    count: int
    minimum: float
    median: float
    p90: float | None
    p99: float | None
    mean: float
    variation: float
    median_low: float
    median_high: float
    drift: float


@dataclass(frozen=True)
class LayerTime:
    """One operator's time.

    Attributes:
        node: Its name in the runtime.
        operator: Its kind.
        ns: Median nanoseconds.
        layer: The layer of the student that it belongs to, where that can be traced.
        share: Of all operators' time, in [0, 1].
    """

    node: str
    operator: str
    ns: float
    layer: str = ""
    share: float = 0.0


@dataclass(frozen=True)
class Environment:
    """Where a measurement took place.

    Attributes:
        cpu: Processor, as the system names it.
        board: Model of the board, where it names itself.
        machine: Architecture.
        system: Kernel and its version.
        runtime: Name and version.
        provider: What computes: `CPU` or a tool's name.
        threads: Intra-op threads.
        governor: Of the clocks.
        power_mode: Of a Jetson.
        affinity: Cores that it ran on.
        dot_products: Whether the processor multiplies integers in fours; None where that is not known.
        other_load: Cores that other processes used.
        steal_share: Share of the time that the host took.
        facts: Further facts that the device's own script found.
    """

    cpu: str | None = None
    board: str | None = None
    machine: str | None = None
    system: str | None = None
    runtime: str | None = None
    provider: str | None = None
    threads: int | None = None
    governor: str | None = None
    power_mode: str | None = None
    affinity: tuple[int, ...] | str | None = None
    dot_products: bool | None = None
    other_load: float | None = None
    steal_share: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def processor(self) -> str:
        """Processor or board, for people; empty where neither is known."""
        return self.cpu or self.board or ""


@dataclass(frozen=True)
class AnswerCheck:
    """An artifact's answers on the device against those of the machine that built it.

    Attributes:
        passed: Whether they are near enough.
        relative_error: Largest difference over the largest score.
        same_class: Share of the example images with the same class, in [0, 1].
    """

    passed: bool
    relative_error: float | None = None
    same_class: float | None = None


@dataclass(frozen=True)
class MeasuredLatency:
    """A measurement, without its samples; those stay in the profile's file.

    Attributes:
        kind: `measured`, or `emulated` where the times say nothing about a device.
        device: Where, as the user named it.
        summaries: By precision.
        steadiest: Lowest median of the processes or passes in nanoseconds, by precision: disturbance only ever adds.
        environment: Machine and runtime.
        warnings: What makes the figures doubtful.
        invalid: Those of the warnings that forbid to use the figures.
        quick: Whether it had fewer samples than the protocol asks for.
        batch: Images per call.
        timed: What the clock covers.
        checks: Whether each artifact's answers were as expected, by precision.
        warm_up_seconds: Before the first sample.
        seconds: Of all samples.
        processes: Over how many the samples are spread.
        layers: Time by operator, slowest first, by precision.
        mlperf_p90: 90th percentile in nanoseconds that MLPerf's early stopping grants, by precision.
        speed_up: Times as fast as fp32, by precision; None where fp32 was not measured.
        memory_bytes: By how much opening and running an artifact let a process of its own grow (VmHWM), by
            precision; empty where the system does not tell.
    """

    kind: str
    device: str
    summaries: dict[str, LatencySummary]
    steadiest: dict[str, float] = field(default_factory=dict)
    environment: Environment = Environment()
    warnings: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    quick: bool = False
    batch: int = 1
    timed: str = ""
    checks: dict[str, AnswerCheck] = field(default_factory=dict)
    warm_up_seconds: float | None = None
    seconds: float | None = None
    processes: int = 1
    layers: dict[str, tuple[LayerTime, ...]] = field(default_factory=dict)
    mlperf_p90: dict[str, float] = field(default_factory=dict)
    speed_up: dict[str, float | None] = field(default_factory=dict)
    memory_bytes: dict[str, int] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Device, processor, runtime and threads: only times of the same place are compared."""
        known = self.environment
        parts = [self.device, known.processor or "unknown processor", known.runtime, f"{known.threads} threads"]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Estimate:
    """Latency computed, not measured.

    Attributes:
        device: Target name.
        median: Point estimate in nanoseconds.
        low: Lower end of the band.
        high: Upper end.
        tier: A (best) to D.
        basis: What it rests on.
    """

    device: str
    median: float
    low: float
    high: float
    tier: str
    basis: str
    kind: str = "estimate"


@dataclass(frozen=True)
class Recommendation:
    """The precision to deploy, by what was measured.

    Attributes:
        precision: `int8`, `fp16` or `fp32`.
        text: The same in a sentence.
        gain: Times as fast as the widest precision; None where that one is recommended.
    """

    precision: str
    text: str
    gain: float | None = None
