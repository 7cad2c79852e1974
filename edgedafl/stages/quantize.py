"""Stage: the student in every precision the target may run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from edgedafl.config import DEFAULT_DROP
from edgedafl.errors import UsageError
from edgedafl.graph.cost import layer_costs
from edgedafl.graph.coverage import integer_coverage
from edgedafl.graph.edit import fix_batch, model_bytes
from edgedafl.graph.half import to_half
from edgedafl.graph.image_input import find_image_input
from edgedafl.graph.layer_names import layer_names
from edgedafl.graph.load import load_onnx, sha256_of
from edgedafl.quantize import CalibrationSet, Judge, Quantized, quantize_model
from edgedafl.rundir import RunDirectory, digest_of, write_atomic
from edgedafl.stages.distill import CALIBRATION, STUDENT
from edgedafl.stages.graphs import for_target
from edgedafl.targets import Target

__all__ = ["allowed_drop", "load_models", "models_dir", "quantize_stage", "stage_name"]


def stage_name(stage: str, run: RunDirectory, target: Target) -> str:
    """Stages of the run's own target keep their plain name; others carry the target's."""
    with run.reading() as manifest:
        own = manifest.get("target", {}).get("name")
    return stage if own == target.name else f"{stage}:{target.name}"


def allowed_drop(run: RunDirectory) -> float:
    """Agreement that int8 may lose against fp32, as the run was told."""
    with run.reading() as manifest:
        return float(manifest["config"].get("max_drop", DEFAULT_DROP))


def models_dir(run: RunDirectory, target: Target) -> Path:
    """Where the precisions of one target lie."""
    return run.path / "models" / target.name


def quantize_stage(
    run: RunDirectory,
    target: Target,
    precision: str,
    max_drop: float | None = None,
    enough: Callable[[onnx.ModelProto], bool] | None = None,
) -> dict[str, Any]:
    """Write `models/<target>/<precision>.onnx`; returns the stage's result.

    Args:
        run: A run with a distilled student.
        target: Whose scheme to use.
        precision: The artifact's; fp32 and fp16 are always written beside it.
        max_drop: Agreement that int8 may lose against fp32; None takes the run's own.
        enough: Whether an int8 model is faithful enough though it loses more than that.
    """
    source, calibration_file = run.path / STUDENT, run.path / CALIBRATION
    if not source.is_file():
        raise UsageError(f"{str(run.path)!r} holds no distilled student.", "Run `edgedafl distill` first.")
    allowed = allowed_drop(run) if max_drop is None else max_drop
    name = stage_name("quantize", run, target)
    inputs = digest_of([sha256_of(source), sha256_of(calibration_file), target.to_dict(), precision, allowed])
    if run.is_current(name, inputs):
        record = run.stage(name)
        assert record is not None
        return record.result
    model, calibration = for_target(load_onnx(source).model, target), CalibrationSet.load(calibration_file)
    models: dict[str, onnx.ModelProto] = {"fp32": fix_batch(model, 1)}
    models["fp16"] = to_half(models["fp32"])
    judge = Judge(models["fp32"], calibration)
    result: dict[str, Any] = {
        "precision": precision,
        "agreements": {"fp32": judge.reference, "fp16": judge.of(models["fp16"]).agreement},
    }
    if precision == "int8":
        found = quantize_model(
            model, target.scheme, calibration, max_drop=allowed, enough=enough, trained=_was_trained(run)
        )
        models["int8"] = found.model
        result |= _integer_result(found, target, models, allowed)
        result["agreements"]["int8"] = found.agreement
    files = []
    for kind, graph in models.items():
        path = models_dir(run, target) / f"{kind}.onnx"
        write_atomic(path, model_bytes(graph))
        files.append(path)
    run.finish(name, inputs, files, result)
    return result


def _was_trained(run: RunDirectory) -> bool:
    record = run.stage("distill")
    return record is None or bool(record.result.get("steps"))


def _integer_result(
    found: Quantized, target: Target, models: dict[str, onnx.ModelProto], max_drop: float
) -> dict[str, Any]:
    names = layer_names(models["fp32"])
    coverage = integer_coverage(found.model, runtime=target.runtime, architecture=target.architecture)
    return {
        "method": found.method,
        "tried": found.tried,
        "agreement": found.agreement,
        "float_agreement": found.float_agreement,
        "max_drop": max_drop,
        "holds": found.holds,
        "trained": found.trained,
        "kept_float": [
            {"layer": names.get(k.node, k.node), "sensitivity": k.sensitivity, "agreement": k.agreement}
            for k in found.kept
        ],
        "coverage": coverage.share,
        "float_layers": [names.get(node, node) for node in coverage.floating],
        "calibration": found.calibration,
        "advice": _advice(target, models["fp32"]),
    }


def _advice(target: Target, model: onnx.ModelProto) -> list[str]:
    """What in this student's shape costs integers their gain on this target."""
    layers = layer_costs(model, find_image_input(model))
    advice = []
    deep = [layer for layer in layers if layer.kind == "depthwise"]
    if deep:
        advice.append(
            f"{len(deep)} depthwise convolutions: int8 gains little on them and costs them most accuracy; "
            "students of plain convolutions (resnet8, resnet20) suit integers better."
        )
    odd = [t.name for t in model.graph.initializer if len(t.dims) == 4 and t.dims[0] % target.channel_multiple]
    if odd and target.runtime == "tensorrt":
        advice.append(
            f"{len(odd)} convolutions have a channel count that is not a multiple of {target.channel_multiple}: "
            f"{target.title} pads them."
        )
    return advice


def load_models(run: RunDirectory, target: Target) -> dict[str, onnx.ModelProto]:
    """The precisions written for a target, fp32 first."""
    folder = models_dir(run, target)
    found = {p: folder / f"{p}.onnx" for p in ("fp32", "fp16", "int8")}
    return {p: load_onnx(path).model for p, path in found.items() if path.is_file()}
