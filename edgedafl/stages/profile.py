"""Stage: latency, measured on this host and estimated for a target that is not attached."""

from __future__ import annotations

import platform
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgedafl.devices import find_device
from edgedafl.errors import MeasurementError
from edgedafl.export import find_exporter
from edgedafl.graph.cost import layer_costs
from edgedafl.graph.image_input import find_image_input
from edgedafl.graph.load import load_onnx, sha256_of
from edgedafl.latency import Measurement, estimate_latency, read_measurement
from edgedafl.rundir import RunDirectory, digest_of
from edgedafl.stages.distill import STUDENT
from edgedafl.stages.export import artifacts_of
from edgedafl.stages.quantize import quantize_stage, stage_name
from edgedafl.targets import Target, find_target

__all__ = ["host_target", "profile_bundle", "profile_stage"]

_BENCH_SECONDS = 900
# int8 has to win by this much before it is called the faster one.
_WORTH_IT = 1.05


def host_target() -> Target:
    """The CPU target whose artifacts run on this machine."""
    return find_target("rpi5" if platform.machine() in ("aarch64", "arm64") else "x86-64-vnni")


def profile_bundle(bundle: Path, device: str, result: Path, *, quick: bool, threads: int = 1) -> Measurement:
    """Run a bundle's `bench` on a device and read what it measured.

    Raises:
        MeasurementError: If the device or the measurement fails.
    """
    arguments = ["--threads", str(threads), *(["--quick"] if quick else [])]
    find_device(device).run_bundle(bundle, arguments, result, timeout=_BENCH_SECONDS)
    return read_measurement(result, device)


def profile_stage(run: RunDirectory, target: Target, precision: str, *, device: str, quick: bool) -> dict[str, Any]:
    """Measure the CPU artifact here; estimate the target. Returns the stage's result.

    A failed measurement costs the run nothing else: it is recorded as such.
    """
    result: dict[str, Any] = {}
    host = host_target()
    student = load_onnx(run.path / STUDENT).model
    if target.name != host.name:
        layers = layer_costs(student, find_image_input(student))
        result["estimate"] = estimate_latency(layers, target, precision).to_dict()
    if device != "none":
        result |= _measure(run, host, precision, device=device, quick=quick)
    name = stage_name("profile", run, target)
    files = [run.path / "profile" / f"{device}.json"]
    run.finish(name, digest_of(sha256_of(run.path / STUDENT)), files, result)
    return result


def _measure(run: RunDirectory, host: Target, precision: str, *, device: str, quick: bool) -> dict[str, Any]:
    # On CPUs float16 is emulated: the CPU artifact beside an fp16 target is fp32 against int8.
    kind = "fp32" if precision == "fp32" else "int8"
    quantize_stage(run, host, kind)
    artifacts = replace(artifacts_of(run, host, kind), provenance={})
    folder = Path(tempfile.mkdtemp(prefix="edgedafl-profile-"))
    try:
        bundle = find_exporter("onnx").export(artifacts, host, folder / "bundle")
        measurement = profile_bundle(bundle.directory, device, run.path / "profile" / f"{device}.json", quick=quick)
    except MeasurementError as error:
        return {"failed": error.message}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"measured": measurement.to_dict(), "recommendation": _recommend(measurement)}


def _recommend(measurement: Measurement) -> str:
    gain = measurement.speed_up("int8")
    if gain is None:
        return ""
    if gain >= _WORTH_IT:
        return f"On this host the int8 artifact is {gain:.2f} times as fast as fp32 (medians, measured in turn)."
    return (
        f"On this host int8 gains nothing over fp32 ({gain:.2f} times as fast, measured in turn): "
        "fp32 is the better artifact here unless size matters more."
    )
