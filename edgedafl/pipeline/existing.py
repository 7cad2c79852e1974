"""One stage again, of a run that is there."""

from __future__ import annotations

from edgedafl.callbacks import OnMessage, silent
from edgedafl.config import CompressConfig, validated
from edgedafl.errors import UsageError
from edgedafl.files.labelled import LabelledSource
from edgedafl.graph.cost import layer_costs
from edgedafl.graph.image_input import find_image_input
from edgedafl.graph.load import load_onnx
from edgedafl.latency import BenchOptions, DeviceModel, estimate_latency
from edgedafl.report import write_report
from edgedafl.runs import ExportResult, ProfileResult, QuantizeResult, RunDirectory, VerifyResult
from edgedafl.stages import (
    allowed_drop,
    calibrate_device,
    calibration_of,
    export_stage,
    options_of,
    possible_bits,
    profile_stage,
    quantize_stage,
    verify_stage,
)
from edgedafl.targets import Target, find_target
from edgedafl.targets.read import read_target
from edgedafl.teachers import Teacher, is_plain_file, load_teacher

__all__ = ["calibrate", "estimated_latency", "export", "profile", "quantize", "run_target", "verify"]


def quantize(
    run: RunDirectory,
    *,
    target: Target,
    precision: str,
    max_drop: float | None = None,
    weight_bits: float | None = None,
) -> QuantizeResult:
    """The run's student for a target; int8 may lose `max_drop` of agreement against fp32.

    Weights of int8 take `weight_bits` bits in the file on average; None leaves that to the run.

    Examples:
        >>> result = quantize(RunDirectory("runs/teacher-rpi4"), target=find_target("rpi4"), precision="int8")
        >>> result.precision
        'int8'
    """
    asked = validated(CompressConfig, {"weight_bits": weight_bits}, "The call")
    bits = None if weight_bits is None else possible_bits(asked, target, precision)[0]
    with run.locked():
        run.record()
        return quantize_stage(run, target, precision, max_drop, weight_bits=bits)


def export(run: RunDirectory, *, target: Target, precision: str, exporter: str | None = None) -> ExportResult:
    """A bundle for a target; quantizes first where that was not done.

    Examples:
        >>> export(RunDirectory("runs/teacher-rpi4"), target=find_target("rpi4"), precision="int8").exporter
        'onnx'
    """
    with run.locked():
        record = run.record()
        # As it was quantized for this target last, if it was.
        last = run.result(run.stage_name("quantize", target.name), QuantizeResult) or QuantizeResult(precision)
        bits = last.weight_bits if last.method else None
        limit = record.config.max_size if target.name == record.target.name else None
        quantize_stage(run, target, precision, last.max_drop, weight_bits=bits, max_size=limit)
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
        >>> sorted(verify(RunDirectory("runs/teacher-rpi4"), target=find_target("rpi4")).agreement)
        ['fp16', 'fp32', 'int8']
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
        >>> run, target = RunDirectory("runs/teacher-rpi4"), find_target("rpi4")
        >>> found = profile(run, target=target, precision="int8", device="none", options=BenchOptions(quick=True))
        >>> found.estimate.low < found.estimate.median < found.estimate.high
        True
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
    """A device's own latency model, from small networks that are measured on it.

    Examples:
        >>> calibrate("pi-in-the-lab")  # doctest: +SKIP
    """
    return calibrate_device(device, target=target, threads=threads, on_message=on_message)


def run_target(run: RunDirectory) -> Target:
    """The target a run was made for; one from a user's file is kept in the run.

    Examples:
        >>> run_target(RunDirectory("runs/teacher-rpi4")).name
        'rpi4'
    """
    name = run.record().target.name
    return read_target(run.target) if run.target.is_file() else find_target(name)


def estimated_latency(run: RunDirectory) -> float:
    """Seconds per image that the estimator gives for the run's own target and precision.

    Examples:
        >>> 0 < estimated_latency(RunDirectory("runs/teacher-rpi4")) < 0.01  # seconds
        True
    """
    record = run.record()
    student = load_onnx(run.student).model
    layers = layer_costs(student, find_image_input(student))
    target = run_target(run)
    model = calibration_of(record.config.device, target)
    return estimate_latency(layers, target, record.shipped, model).median / 1e9
