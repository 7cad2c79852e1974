"""Stage: the student in every precision the target may run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from edgedafl.errors import UsageError
from edgedafl.graph.edit import clamp_ir, fix_batch, model_bytes
from edgedafl.graph.half import to_half
from edgedafl.graph.load import load_onnx, sha256_of
from edgedafl.quantize import CalibrationSet, quantize_model
from edgedafl.rundir import RunDirectory, digest_of, write_atomic
from edgedafl.stages.distill import CALIBRATION, STUDENT
from edgedafl.targets import Target

__all__ = ["for_target", "load_models", "models_dir", "quantize_stage", "stage_name"]


def stage_name(stage: str, run: RunDirectory, target: Target) -> str:
    """Stages of the run's own target keep their plain name; others carry the target's."""
    own = run.read_manifest().get("target", {}).get("name")
    return stage if own == target.name else f"{stage}:{target.name}"


def models_dir(run: RunDirectory, target: Target) -> Path:
    """Where the precisions of one target lie."""
    return run.path / "models" / target.name


def quantize_stage(run: RunDirectory, target: Target, precision: str) -> dict[str, Any]:
    """Write `models/<target>/<precision>.onnx`; returns the stage's result.

    Args:
        run: A run with a distilled student.
        target: Whose scheme to use.
        precision: The artifact's; fp32 is always written beside it, and fp16 for TensorRT.
    """
    source, calibration_file = run.path / STUDENT, run.path / CALIBRATION
    if not source.is_file():
        raise UsageError(f"{str(run.path)!r} holds no distilled student.", "Run `edgedafl distill` first.")
    name = stage_name("quantize", run, target)
    inputs = digest_of([sha256_of(source), sha256_of(calibration_file), target.to_dict(), precision])
    if run.is_current(name, inputs):
        record = run.stage(name)
        assert record is not None
        return record.result
    model = for_target(load_onnx(source).model, target)
    models: dict[str, onnx.ModelProto] = {"fp32": fix_batch(model, 1)}
    result: dict[str, Any] = {"precision": precision}
    if target.scheme.remainder == "float16" or precision == "fp16":
        models["fp16"] = to_half(models["fp32"])
    if precision == "int8":
        found = quantize_model(model, target.scheme, CalibrationSet.load(calibration_file))
        models["int8"] = found.model
        result |= {
            "method": found.method,
            "tried": found.tried,
            "agreement": found.agreement,
            "float_agreement": found.float_agreement,
            "calibration": found.calibration,
        }
    files = []
    for kind, graph in models.items():
        path = models_dir(run, target) / f"{kind}.onnx"
        write_atomic(path, model_bytes(graph))
        files.append(path)
    run.finish(name, inputs, files, result)
    return result


def for_target(model: onnx.ModelProto, target: Target) -> onnx.ModelProto:
    """The student at the target's operator set and IR version."""
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    converted = model
    if opset != target.opset:
        converted = onnx.version_converter.convert_version(model, target.opset)
    clamp_ir(converted, target.ir_version)
    converted.ir_version = max(converted.ir_version, _lowest_ir(target.opset))
    return converted


def _lowest_ir(opset: int) -> int:
    """The IR version an operator set asks for at least."""
    return 8 if opset <= 18 else 9 if opset <= 20 else 10


def load_models(run: RunDirectory, target: Target) -> dict[str, onnx.ModelProto]:
    """The precisions written for a target, fp32 first."""
    folder = models_dir(run, target)
    found = {p: folder / f"{p}.onnx" for p in ("fp32", "fp16", "int8")}
    return {p: load_onnx(path).model for p, path in found.items() if path.is_file()}
