"""Stage: latency, measured where a device is at hand and estimated where none is."""

from __future__ import annotations

import platform
import shutil
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from edgedafl.callbacks import OnMessage, silent
from edgedafl.devices import file_stem, find_device, get_device_entry, run_bundle
from edgedafl.errors import MeasurementError, UsageError
from edgedafl.export import Artifacts, Bundle, find_exporter, read_bundle
from edgedafl.files import digest_of
from edgedafl.graph.cost import layer_costs
from edgedafl.graph.image_input import find_image_input
from edgedafl.graph.layer_names import layer_names, name_layers
from edgedafl.graph.load import load_onnx, sha256_of
from edgedafl.latency import BenchOptions, estimate_latency, read_measurement
from edgedafl.quantize import (
    ROUNDING_IMAGES,
    CalibrationSet,
    integer_model,
    with_unsigned_activations,
)
from edgedafl.runs import EMULATED, MeasuredLatency, ProfileResult, QuantizeResult, RunDirectory
from edgedafl.stages.export import artifacts_of, export_stage
from edgedafl.stages.quantize import load_models
from edgedafl.stages.recommend import recommend
from edgedafl.targets import Target, find_target

__all__ = ["host_target", "profile_bundle", "profile_stage", "require_device"]

# Files of bundles that neither a shell nor Python takes for a program.
_INERT = {".bin", ".cc", ".h", ".json", ".md", ".npz", ".onnx", ".ort", ".pte", ".tflite", ".txt"}
_GREETING_SECONDS = 30.0


def host_target() -> Target:
    """The CPU target whose artifacts run on this machine.

    Examples:
        >>> host_target().runtime
        'onnxruntime'
    """
    return find_target("rpi5" if platform.machine() in ("aarch64", "arm64") else "x86-64-vnni")


def _runs_here(target: Target) -> bool:
    """Whether this machine is of a target's kind, and measures another runtime than its usual one."""
    return target.runtime == "openvino" and platform.machine() in ("x86_64", "AMD64")


def require_device(device: str) -> None:
    """See that a device answers.

    Raises:
        UsageError: If there is none of that name.
        MeasurementError: If it cannot be reached.

    Examples:
        >>> require_device("local")
    """
    with closing(find_device(device)) as place:
        place.run("true", timeout=_GREETING_SECONDS)


def profile_bundle(
    bundle: Path,
    device: str,
    result: Path,
    options: BenchOptions | None = None,
    on_message: OnMessage = silent,
    *,
    trust: bool = False,
) -> MeasuredLatency:
    """Run a bundle's `bench` on a device and read what it measured.

    Args:
        bundle: Its folder.
        device: Where.
        result: Where to write what was measured.
        options: Of the measurement.
        on_message: Called with what happens on the device.
        trust: Whether programs may be run that this version did not write.

    Raises:
        UsageError: If it is not whole, or holds other programs than its exporter's, and is not trusted.
        MeasurementError: If the device or the measurement fails.

    Examples:
        >>> bundle = Path("runs/teacher-rpi4/bundles/rpi4")
        >>> profile_bundle(bundle, "pi-in-the-lab", Path("latency.json")).summaries["int8"].median  # doctest: +SKIP
        2150000.0
    """
    whole = read_bundle(bundle)
    if not trust:
        _require_known_programs(whole)
    asked = options or BenchOptions()
    with closing(find_device(device)) as place:
        run_bundle(
            place, bundle, asked.arguments(), result, timeout=asked.timeout, keep=asked.keep, on_message=on_message
        )
    found = read_measurement(result, device)
    return replace(found, kind=EMULATED) if place.emulated else found


def _require_known_programs(bundle: Bundle) -> None:
    """Bundles are passed on, and `bench` is run: it has to be the one that is written here."""
    known = find_exporter(str(bundle.manifest["exporter"])).executables()
    for file in sorted(bundle.directory.iterdir()):
        if file.is_dir() or file.name == "manifest.json":
            continue  # folders do not travel
        inert = file.suffix in _INERT and file.name not in known
        if file.is_symlink() or not (inert or known.get(file.name) == file.read_bytes()):
            raise UsageError(
                f"The bundle {str(bundle.directory)!r} would run or load {file.name!r}, "
                "which this version did not write.",
                "Export it again, or add --trust if you know where it comes from.",
            )


def profile_stage(
    run: RunDirectory,
    target: Target,
    precision: str,
    *,
    device: str,
    options: BenchOptions | None = None,
    max_drop: float | None = None,
    on_message: OnMessage = silent,
) -> ProfileResult:
    """Measure where asked, estimate the target where it is not attached.

    A failed measurement costs the run nothing else: it is recorded as such.

    Args:
        run: A run with a bundle for `target`.
        target: The target.
        precision: The artifact's.
        device: `local` measures the CPU artifact on this machine, `none` nothing; any other device
            gets the target's own bundle.
        options: Of the measurement.
        max_drop: Loss of agreement that a recommended precision may have.
        on_message: Called with what happens on the device.

    Examples:
        >>> run, target = RunDirectory("runs/teacher-rpi4"), host_target()
        >>> profile_stage(run, target, "int8", device="none").measured
    """
    host = target if _runs_here(target) else host_target()
    student = load_onnx(run.student).model
    result = ProfileResult()
    if device == "local":
        result = _measure_here(run, target, host, precision, options, on_message)
    elif device != "none":
        get_device_entry(device)
        export_stage(run, target, precision)
        result = _measure(run, run.bundle(target.name), device, options, on_message)
    if target.device and (device == "none" or (device == "local" and target.name != host.name)):
        layers = layer_costs(student, find_image_input(student))
        result = replace(result, estimate=estimate_latency(layers, target, precision))
    if (found := result.measured) is not None:
        names = layer_names(student)
        found = replace(found, layers={kind: name_layers(rows, names) for kind, rows in found.layers.items()})
        quantized = run.result(run.stage_name("quantize", target.name), QuantizeResult)
        agreements = {} if quantized is None else quantized.agreements
        best = recommend(found, agreements, faithful=_found_faithful(run, target), max_drop=max_drop)
        result = replace(result, measured=found, recommendation=best)
    name = run.stage_name("profile", target.name)
    run.finish(name, digest_of(sha256_of(run.student)), [run.profile(file_stem(device))], result)
    return result


def _measure_here(
    run: RunDirectory,
    target: Target,
    host: Target,
    precision: str,
    options: BenchOptions | None,
    on_message: OnMessage,
) -> ProfileResult:
    artifacts = _artifacts_for_host(run, target, host, precision)
    folder = Path(tempfile.mkdtemp(prefix="edgedafl-profile-"))
    try:
        bundle = find_exporter(host.exporter).export(artifacts, host, folder / "bundle")
        return _measure(run, bundle.directory, "local", options, on_message)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _artifacts_for_host(run: RunDirectory, target: Target, host: Target, precision: str) -> Artifacts:
    """The target's own artifacts where this machine runs them; else integers as this machine takes them.

    Only their times count here: which answers integers cost is known of the target's.
    """
    artifacts, models = artifacts_of(run, target, precision), load_models(run, target)
    # On CPUs float16 is emulated: the CPU artifact beside an fp16 target is fp32 against int8.
    if precision != "fp32" and target.runtime != host.runtime:
        calibration = CalibrationSet.load(run.calibration)
        rounding = calibration.rounding_images(ROUNDING_IMAGES)
        models["int8"] = integer_model(models["fp32"], host.scheme, calibration.images(), rounding)
    elif "int8" in models and host.scheme.activations == "uint8":
        models["int8"] = with_unsigned_activations(models["int8"])
    primary = "int8" if "int8" in models else "fp32"
    return replace(artifacts, models=models, primary=primary, provenance={})


def _measure(
    run: RunDirectory, bundle: Path, device: str, options: BenchOptions | None, on_message: OnMessage
) -> ProfileResult:
    try:
        found = profile_bundle(bundle, device, run.profile(file_stem(device)), options, on_message)
    except MeasurementError as error:
        return ProfileResult(failed=error.message, hint=error.hint)
    return ProfileResult(measured=found)


def _found_faithful(run: RunDirectory, target: Target) -> set[str]:
    """The precision whose fidelity was judged and holds: that says more than agreement on synthetic images.

    Judged is the artifact of the run's own target alone.
    """
    record = run.record()
    verdict, exported = record.verdict, record.exported
    if verdict is None or exported is None or record.target.name != target.name:
        return set()
    judged = verdict.holds and verdict.floor and verdict.band is not None
    return {exported.precision} if judged else set()
