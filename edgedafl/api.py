"""What a program calls: a model goes in, a typed result comes out.

>>> from edgedafl import compress
>>> result = compress("model.onnx", target="jetson", preprocess="imagenet")  # doctest: +SKIP
>>> print(result.verdict, result.artifact)  # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedafl import pipeline
from edgedafl.allocator import keep_freed_memory
from edgedafl.callbacks import OnMessage, OnProgress, silent
from edgedafl.config import AS_IT_IS, CompressConfig, GateConfig, default_output, validated
from edgedafl.runs import GateReport, ProfileResult

__all__ = ["Compressed", "compress", "quantize"]


@dataclass(frozen=True)
class Compressed:
    """What came out of a run.

    Attributes:
        run: The run directory.
        artifact: The file to deploy.
        bundle: The folder that is copied to the device, the artifact in it.
        report: The page about it.
        verdict: How faithful the artifact is, in one sentence.
        holds: Whether that is what was asked for.
        precision: `int8`, `fp16` or `fp32`.
        size: Bytes of the artifact.
        fidelity: Share of real inputs with the teacher's class, in [0, 1]; None where it cannot be told.
        fidelity_low: Lower end of its 90 % band.
        fidelity_kind: How it is known, e.g. `predicted` or `measured on labelled images`.
        accuracy: On labelled pictures, in [0, 1], by model; empty where none were given.
        latency: Median seconds per image; None where it is not known.
        latency_is_estimate: Whether it was computed for the target rather than measured.
        gate: How limits fared; None where there were none.
    """

    run: Path
    artifact: Path
    bundle: Path
    report: Path
    verdict: str
    holds: bool
    precision: str
    size: int
    fidelity: float | None
    fidelity_low: float | None
    fidelity_kind: str
    accuracy: dict[str, float]
    latency: float | None
    latency_is_estimate: bool
    gate: GateReport | None

    def to_dict(self) -> dict[str, Any]:
        """A JSON form; paths are text."""
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in vars(self).items()}
        return {**plain, "gate": None if self.gate is None else self.gate.to_dict()}


def compress(
    source: str | Path,
    *,
    limits: GateConfig | None = None,
    resume: bool = False,
    force: bool = False,
    on_progress: OnProgress = silent,
    on_message: OnMessage = silent,
    **settings: Any,
) -> Compressed:
    """From a teacher to a verified, measured bundle with its report.

    Like the command line it lets this process keep freed memory for the next tensor, up to a gigabyte: at 224
    pixels a side that saves a third of the time before training (`allocator`).

    Args:
        source: An .onnx file, `package.module:factory`, a PyTorch file (with `trust=True`), or the address of a
            served model.
        limits: To hold the artifact against.
        resume: Go on from an interrupted run.
        force: Replace another run in the same directory.
        on_progress: Called with progress of training.
        on_message: Called with the name of each stage as it begins.
        settings: Attributes of `CompressConfig`, e.g. `target="jetson"`, `preprocess="imagenet"`, `max_size="1MB"`,
            `images="pictures/"`, `min_fidelity="95%"`, `output="runs/mine"`.

    Returns:
        Paths, figures and the verdict; `holds` says whether it is what was asked for.

    Raises:
        EdgeDaflError: One of its children, with a message, a hint and an exit code.

    Examples:
        >>> from edgedafl import compress
        >>> result = compress("model.onnx", target="raspberry-pi", preprocess="tf")  # doctest: +SKIP
        >>> result.holds, result.size  # doctest: +SKIP
        (True, 577612)
    """
    if "output" not in settings:
        settings["output"] = default_output(str(source), settings.get("target"))
    config = validated(CompressConfig, settings, "The call")
    keep_freed_memory()
    plan = pipeline.prepare(str(source), config, on_message)
    done = pipeline.compress(
        plan, resume=resume, force=force, on_progress=on_progress, on_message=on_message, limits=limits
    )
    return _result(done)


def quantize(source: str | Path, **settings: Any) -> Compressed:
    """A model as it is in a target's integers, without data: `compress` with all of its layers kept.

    Args:
        source: As for `compress`.
        settings: As for `compress`; latency is estimated unless a `device` is named.

    Returns:
        As `compress` returns it.

    Raises:
        EdgeDaflError: One of its children.

    Examples:
        >>> from edgedafl.api import quantize
        >>> quantize("model.onnx", target="phone").artifact  # doctest: +SKIP
    """
    return compress(source, **{**AS_IT_IS, **settings})


def _result(done: pipeline.Compression) -> Compressed:
    record = done.run.record()
    exported, profiled = record.exported, record.profiled or ProfileResult()
    assert exported is not None and record.verified is not None  # `compress` ends with both
    precision, band = exported.precision, done.verdict.band
    bundle = done.run.path / exported.directory
    estimated = profiled.is_estimated(precision)
    estimate = profiled.estimate.median / 1e9 if profiled.estimate else None
    return Compressed(
        run=done.run.path,
        artifact=bundle / exported.primary,
        bundle=bundle,
        report=done.run.path / "report.html",
        verdict=done.verdict.sentence,
        holds=done.verdict.holds,
        precision=precision,
        size=exported.sizes[precision],
        fidelity=None if band is None else band.fidelity,
        fidelity_low=None if band is None else band.low,
        fidelity_kind="" if band is None else band.kind,
        accuracy=record.verified.accuracy,
        latency=estimate if estimated else pipeline.measured_of(done.run).latency,
        latency_is_estimate=estimated,
        gate=done.gate,
    )
