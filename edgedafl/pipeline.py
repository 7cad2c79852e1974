"""The stages in the order the data flows, nothing else.

    teacher -> student -> distill -> quantize -> export -> verify -> profile -> report

Each function below is one of the commands; `compress` is all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from edgedafl.callbacks import OnMessage, OnProgress, silent
from edgedafl.config import GateConfig
from edgedafl.distill import DistributedContext, init_distributed
from edgedafl.distill.monitoring.preflight import check_teacher
from edgedafl.errors import UsageError
from edgedafl.export import read_bundle
from edgedafl.fidelity import measured_band
from edgedafl.files.labelled import LabelledSource
from edgedafl.gate import gate_model, gate_run, measured_of
from edgedafl.graph.cost import layer_costs
from edgedafl.graph.facts import GraphFacts, facts_of
from edgedafl.graph.image_input import find_image_input
from edgedafl.graph.load import load_onnx
from edgedafl.latency import BenchOptions, DeviceModel, estimate_latency
from edgedafl.report import RunSummary, summarize_run, write_report
from edgedafl.runs import (
    DistillResult,
    ExportResult,
    FidelityVerdict,
    GateReport,
    Preflight,
    ProfileResult,
    QuantizeResult,
    RunDirectory,
    VerifyResult,
)
from edgedafl.stages import (
    Plan,
    allowed_drop,
    assist,
    band_of,
    calibrate_device,
    calibration_of,
    distill_stage,
    export_stage,
    keep_calibration,
    labelled_of,
    load_models,
    options_of,
    prepare,
    profile_stage,
    quantize_stage,
    record,
    require_device,
    shipped_scores,
    verdict_stage,
    verify_stage,
)
from edgedafl.targets import Target, find_target
from edgedafl.targets.read import read_target
from edgedafl.teachers import (
    OnnxTeacher,
    RuntimeTeacher,
    Teacher,
    TeacherOptions,
    TeacherSpec,
    is_plain_file,
    load_teacher,
)

if TYPE_CHECKING:
    pass

_LITTLE_TIME = 30.0
"""Seconds of training below which a larger candidate is taken as it was refitted."""

__all__ = [
    "Compression",
    "Inspection",
    "calibrate",
    "compress",
    "distill",
    "estimated_latency",
    "export",
    "gate_model",
    "gate_run",
    "inspect",
    "keep_calibration",
    "measured_of",
    "prepare",
    "profile",
    "quantize",
    "run_target",
    "verify",
]


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


@dataclass(frozen=True)
class Inspection:
    """What a model is.

    Attributes:
        spec: What is known of it as a teacher.
        preflight: What it answers to procedural images.
        graph: Facts of its graph; None for PyTorch and served teachers.
    """

    spec: TeacherSpec
    preflight: Preflight
    graph: GraphFacts | None


def inspect(source: str, options: TeacherOptions | None = None) -> Inspection:
    """Load a model as a teacher and look at it.

    Args:
        source: An .onnx file, `package.module:factory`, a PyTorch file (with `trust`), or an address.
        options: What is declared about it; `TeacherOptions()` when None.

    Returns:
        Its specification, its first answers, and facts of its graph.

    Raises:
        EdgeDaflError: One of its children; `UnsupportedModelError` if it cannot be a teacher.

    Examples:
        >>> from edgedafl import TeacherOptions, inspect
        >>> found = inspect("examples/mnist/teacher.onnx", TeacherOptions(mean=(0.1307,), std=(0.3081,)))
        >>> found.spec.num_classes, found.spec.input_shape
        (10, (1, 32, 32))
    """
    teacher = load_teacher(source, options)
    graph = facts_of(load_onnx(source).model) if isinstance(teacher, OnnxTeacher | RuntimeTeacher) else None
    return Inspection(teacher.spec, check_teacher(teacher), graph)


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
    at = next((place for place, c in enumerate(looked) if c.name == current.student.spec.name), 0)
    rest = [c for c in looked[at + 1 :] if c.untrained is not None]
    started = time.monotonic()
    first = True

    def enough(model: onnx.ModelProto) -> bool:
        band = band_of(model, study, current.student.spec) if study is not None else None
        return band is not None and band.fidelity >= floor

    while True:
        run.update(student=current.student.spec.to_dict(), candidate=current.student.spec.name)
        on_message("distill")
        distill_stage(current, run, world=world, resume=resume and first, on_progress=on_progress)
        on_message("quantize")
        quantize_stage(run, target, precision, enough=enough)
        if not rest or not floor or enough(load_models(run, target)[precision]):
            return
        left = None
        if plan.config.seconds is not None:
            left = max(0.0, plan.config.seconds - (time.monotonic() - started))
            if left < _LITTLE_TIME:  # what is not faithful untrained will not become so
                rest = [c for c in rest[:-1] if c.untrained and c.untrained.cautious >= floor] + rest[-1:]
        run.checkpoint_path.unlink(missing_ok=True)
        current, first = plan.at(rest.pop(0).name, left), False


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
        run.update(student=plan.student.spec.to_dict(), candidate=plan.student.spec.name)
        return distill_stage(plan, run, world=world, resume=resume, on_progress=on_progress)


def quantize(run: RunDirectory, *, target: Target, precision: str, max_drop: float | None = None) -> QuantizeResult:
    """The run's student for a target; int8 may lose `max_drop` of agreement against fp32."""
    with run.locked():
        run.record()
        return quantize_stage(run, target, precision, max_drop)


def export(run: RunDirectory, *, target: Target, precision: str, exporter: str | None = None) -> ExportResult:
    """A bundle for a target; quantizes first where that was not done."""
    with run.locked():
        run.record()
        quantize_stage(run, target, precision)
        return export_stage(run, target, precision, exporter)


def verify(
    run: RunDirectory, *, target: Target, labelled: LabelledSource | None = None, trust: bool = False
) -> VerifyResult:
    """Compare teacher, student and bundle of a run.

    Args:
        run: The run.
        target: For which target.
        labelled: The user's labelled pictures, for reporting; the run's teacher is opened for it.
        trust: Whether that teacher may run code or be asked over the network.

    Returns:
        Agreement and parity of every precision; accuracy and class errors where labelled pictures are given.

    Raises:
        CheckFailedError: If the bundle's model does not answer as its `expected_io` says.
        UsageError: If it is not a run, or its teacher needs `trust`.

    Examples:
        >>> from edgedafl import RunDirectory, find_target, verify
        >>> verify(RunDirectory("runs/mine"), target=find_target("phone")).agreement  # doctest: +SKIP
        {'fp32': 0.98, 'fp16': 0.98, 'int8': 0.977}
    """
    run.record()
    with run.locked():
        teacher = None if labelled is None else _teacher_again(run, trust)
        return verify_stage(run, target, teacher=teacher, labelled=labelled)


def _teacher_again(run: RunDirectory, trust: bool) -> Teacher:
    """The teacher that a run names: runs are passed on, so what it says of trust does not count."""
    record = run.record()
    config, source = record.config.model_copy(update={"trust": trust}), record.teacher.source
    if not trust and not is_plain_file(source):
        raise UsageError(
            f"The run's teacher {source!r} is code of its own or lies on a server.",
            "If this is a run of yours, add --trust.",
        )
    return load_teacher(source, options_of(config))


def profile(
    run: RunDirectory,
    *,
    target: Target,
    precision: str,
    device: str,
    options: BenchOptions | None = None,
    on_message: OnMessage = silent,
) -> ProfileResult:
    """Measure and estimate a run's latency.

    Args:
        run: The run.
        target: Whose bundle is measured.
        precision: `int8`, `fp16` or `fp32`, for the estimate.
        device: `local`, `none`, a named device, `ssh://user@host` or `adb:SERIAL`.
        options: Of the measurement; the full protocol when None.
        on_message: Called with what happens on the device.

    Returns:
        All times in nanoseconds; `failed` says why nothing could be measured.

    Raises:
        EdgeDaflError: One of its children, e.g. `UsageError` if there is no such device.

    Examples:
        >>> from edgedafl import BenchOptions, RunDirectory, find_target, profile
        >>> run, target = RunDirectory("runs/mine"), find_target("phone")
        >>> options = BenchOptions(quick=True)
        >>> profile(run, target=target, precision="int8", device="local", options=options)  # doctest: +SKIP
    """
    with run.locked():
        drop = allowed_drop(run)
        result = profile_stage(
            run, target, precision, device=device, options=options, max_drop=drop, on_message=on_message
        )
        write_report(run)
        return result


def calibrate(
    device: str, *, target: str | None = None, threads: int = 1, on_message: OnMessage = silent
) -> DeviceModel:
    """A device's own latency model, from small networks that are measured on it."""
    return calibrate_device(device, target=target, threads=threads, on_message=on_message)


def run_target(run: RunDirectory) -> Target:
    """The target a run was made for; one from a user's file is kept in the run."""
    name = run.record().target.name
    return read_target(run.target) if run.target.is_file() else find_target(name)


def estimated_latency(run: RunDirectory) -> float:
    """Seconds per image that the estimator gives for the run's own target and precision."""
    record = run.record()
    student = load_onnx(run.student).model
    layers = layer_costs(student, find_image_input(student))
    target = run_target(run)
    model = calibration_of(record.config.device, target)
    return estimate_latency(layers, target, record.shipped, model).median / 1e9
