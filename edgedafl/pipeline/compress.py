"""From a teacher to a report: the stages in the order in which data flows.

teacher -> student -> distill -> quantize -> export -> verify -> profile -> report
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgedafl.callbacks import OnMessage, OnProgress, silent
from edgedafl.config import GateConfig
from edgedafl.distill import DistributedContext, init_distributed
from edgedafl.errors import UsageError
from edgedafl.export import read_bundle
from edgedafl.fidelity import measured_band
from edgedafl.gate import gate_run
from edgedafl.latency import BenchOptions
from edgedafl.report import RunSummary, summarize_run, write_report
from edgedafl.runs import Candidate, DistillResult, FidelityVerdict, GateReport, RunDirectory, VerifyResult
from edgedafl.stages import (
    Plan,
    assist,
    band_of,
    distill_stage,
    export_stage,
    labelled_of,
    load_models,
    profile_stage,
    quantize_stage,
    record,
    require_device,
    shipped_scores,
    verdict_stage,
    verify_stage,
)

__all__ = ["Compression", "compress", "distill"]

_LITTLE_TIME = 30.0
"""Seconds of training below which a larger candidate is taken as it was refitted."""


@dataclass(frozen=True)
class Compression:
    """A finished run.

    Attributes:
        run: Its directory.
        summary: What the report says.
        verdict: Whether the artifact is faithful enough.
        gate: How the limits fared; None where there are none.
    """

    run: RunDirectory
    summary: RunSummary
    verdict: FidelityVerdict
    gate: GateReport | None


def compress(
    plan: Plan,
    *,
    resume: bool = False,
    force: bool = False,
    on_progress: OnProgress = silent,
    on_message: OnMessage = silent,
    limits: GateConfig | None = None,
    limits_file: Path | None = None,
) -> Compression:
    """From a teacher to a verified, measured bundle with its report.

    Args:
        plan: Made by `prepare`.
        resume: Go on from an interrupted run.
        force: Replace another run in the same directory.
        on_progress: Called with distillation progress.
        on_message: Called with the name of each stage as it begins.
        limits: To hold the artifact against.
        limits_file: Where they are written.

    Raises:
        EdgeDaflError: One of its children.

    Examples:
        >>> plan = prepare("model.onnx", CompressConfig(target="rpi4"))  # doctest: +SKIP
        >>> compress(plan).verdict.band.fidelity  # doctest: +SKIP
        0.982
    """
    run, world = RunDirectory(plan.config.output), init_distributed(plan.config.accelerator)
    if world.size > 1:
        raise UsageError(
            "`compress` measures on this machine and runs as one process.",
            "Start `edgedafl distill` under torchrun, then `edgedafl compress` with the same flags alone.",
        )
    target, precision = plan.target, plan.precision
    if plan.config.device not in ("local", "none"):
        require_device(plan.config.device)  # before minutes of training
    with run.locked():
        record(plan, run, force=force, resume=resume)
        _faithful_student(plan, run, world, resume=resume, on_progress=on_progress, on_message=on_message)
        on_message("export")
        export_stage(run, target, precision)
        on_message("verify")
        verified = verify_stage(run, target, teacher=plan.teacher, labelled=labelled_of(plan.config))
        verdict = _verdict(plan, run, verified)
        on_message("profile")
        profile_stage(
            run,
            target,
            precision,
            device=plan.config.device,
            options=BenchOptions(quick=plan.config.quick),
            max_drop=plan.config.max_drop,
        )
        limits = _with_missed_size(limits, plan, run)
        gate = None if limits is None else gate_run(run, limits, limits_file)
        run.update(gate=None if gate is None else gate.to_dict())
        on_message("report")
        write_report(run)
    return Compression(run, summarize_run(run), verdict, gate)


def _faithful_student(
    plan: Plan,
    run: RunDirectory,
    world: DistributedContext,
    *,
    resume: bool,
    on_progress: OnProgress,
    on_message: OnMessage,
) -> None:
    """Train and quantize the chosen candidate; the next larger one where the artifact is not faithful enough."""
    floor, target, precision, study = plan.config.min_fidelity, plan.target, plan.precision, plan.study
    current = plan.begun(run)
    looked = () if plan.ladder is None else plan.ladder.candidates
    rest = [place for place in range(current.place + 1, len(looked)) if looked[place].untrained is not None]
    started = time.monotonic()
    first = True

    def enough(model: onnx.ModelProto) -> bool:
        band = band_of(model, study, current.student.spec) if study is not None else None
        return band is not None and band.fidelity >= floor

    while True:
        run.update(**_taken(current))
        on_message("distill")
        distill_stage(current, run, world=world, resume=resume and first, on_progress=on_progress)
        on_message("quantize")
        quantize_stage(
            run,
            target,
            precision,
            plan.config.max_drop,
            enough=enough,
            weight_bits=current.artifact_bits,
            max_size=plan.config.max_size,
        )
        if not rest or not floor or enough(load_models(run, target)[precision]):
            return
        left = None
        if plan.config.seconds is not None:
            left = max(0.0, plan.config.seconds - (time.monotonic() - started))
            if left < _LITTLE_TIME:  # what is not faithful untrained will not become so
                rest = [place for place in rest[:-1] if _cautious(looked[place]) >= floor] + rest[-1:]
        run.remove_checkpoint()
        current, first = plan.at(rest.pop(0), left), False


def _cautious(candidate: Candidate) -> float:
    return candidate.untrained.cautious if candidate.untrained else 0.0


def _with_missed_size(limits: GateConfig | None, plan: Plan, run: RunDirectory) -> GateConfig | None:
    """The limits, and the size that was asked for where the file that was made is larger: a run does not hide that."""
    asked, exported = plan.config.max_size, run.record().exported
    if asked is None or exported is None or exported.sizes[exported.precision] <= asked:
        return limits
    return (limits or GateConfig()).model_copy(update={"max_size": asked})


def _taken(plan: Plan) -> dict[str, Any]:
    """What the manifest says of the student that was taken."""
    spec = plan.student.spec
    return {"student": spec.to_dict(), "candidate": spec.name, "weight_bits": plan.artifact_bits}


def _verdict(plan: Plan, run: RunDirectory, verified: VerifyResult) -> FidelityVerdict:
    assert plan.study is not None
    known = verified.fidelity.get(plan.precision)
    labelled = None if known is None else measured_band(known.same, known.images, "measured on labelled images")
    looked = () if plan.ladder is None else plan.ladder.candidates
    return verdict_stage(
        run,
        plan.study,
        run.record().student,
        lambda: _artifact(run, plan),
        plan.config.min_fidelity,
        labelled=labelled,
        ladder=looked,
    )


def _artifact(run: RunDirectory, plan: Plan) -> onnx.ModelProto | Callable[[np.ndarray], np.ndarray]:
    """What is shipped: a graph of the run, or what an exporter has made of it."""
    bundle = read_bundle(run.bundle(plan.target.name))
    own = shipped_scores(bundle).get(str(bundle.manifest["precision"]))
    return own or load_models(run, plan.target)[plan.precision]


def distill(
    plan: Plan, *, resume: bool = False, force: bool = False, on_progress: OnProgress = silent
) -> DistillResult | None:
    """Only the student: `student.onnx`, `calibration.npz`, samples.

    Under `torchrun` all processes train together; the first one writes, the others return nothing.

    Examples:
        >>> plan = prepare("model.onnx", CompressConfig(student="kept:0.5"))  # doctest: +SKIP
        >>> distill(plan)  # doctest: +SKIP
    """
    run, world = RunDirectory(plan.config.output), init_distributed(plan.config.accelerator)
    if not world.is_main_process:
        place = int(world.broadcast(0.0)[0])  # how fast a process is may have led it to another candidate
        assist(plan.at_place(place), run, world)
        return None
    with run.locked():
        record(plan, run, force=force, resume=resume)
        plan = plan.begun(run)
        world.broadcast(float(plan.place))
        run.update(**_taken(plan))
        return distill_stage(plan, run, world=world, resume=resume, on_progress=on_progress)
