"""Stage: a bundle for the target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgedafl.errors import UsageError
from edgedafl.export import Artifacts, Bundle, find_exporter, read_bundle
from edgedafl.graph.load import sha256_of
from edgedafl.quantize import CalibrationSet
from edgedafl.rundir import RunDirectory, digest_of
from edgedafl.stages.distill import CALIBRATION
from edgedafl.stages.quantize import load_models, models_dir, stage_name
from edgedafl.targets import Target

__all__ = ["artifacts_of", "bundle_dir", "export_stage"]

_EXAMPLES = 16
_CALIBRATION = 128


def bundle_dir(run: RunDirectory, target: Target) -> Path:
    """Where a target's bundle lies."""
    return run.path / "bundles" / target.name


def artifacts_of(run: RunDirectory, target: Target, precision: str) -> Artifacts:
    """What there is to ship for a target.

    Raises:
        UsageError: If the student was not quantized for it.
    """
    models = load_models(run, target)
    if precision not in models:
        raise UsageError(
            f"{str(run.path)!r} holds no {precision} model for {target.name}.",
            f"Run `edgedafl quantize {run.path} --target {target.name}` first.",
        )
    if target.runtime == "tensorrt":
        models.pop("fp32", None)  # fp16 is the float form that Jetsons run
    calibration = CalibrationSet.load(run.path / CALIBRATION)
    with run.reading() as manifest:
        quantized = _result(manifest, stage_name("quantize", run, target))
        return Artifacts(
            models=models,
            primary=precision if precision in models else "fp16",
            name=str(manifest["student"]["name"]),
            preprocess=calibration.preprocess.to_dict(),
            inputs=calibration.probe_images()[:_EXAMPLES].astype(np.float32),
            provenance={
                "teacher_sha256": manifest["teacher"]["sha256"],
                "seed": manifest["config"]["seed"],
                "versions": manifest["versions"],
                "calibration": calibration.digest,
            },
            calibration=calibration.images()[:_CALIBRATION].astype(np.float32),
            agreements=quantized.get("agreements", {}),
            card=_card(manifest, quantized),
        )


def _result(manifest: dict[str, Any], stage: str) -> dict[str, Any]:
    result: dict[str, Any] = manifest.get("stages", {}).get(stage, {}).get("result", {})
    return result


def _card(manifest: dict[str, Any], quantize: dict[str, Any]) -> dict[str, str]:
    student, distill = manifest["student"], _result(manifest, "distill")
    card = {
        "Student": f"{student['name']}, {student['parameters']:,} weights, {student['macs']:,} MACs per image, "
        f"{student['num_classes']} classes ({manifest['teacher']['task']})",
    }
    if distill:
        card["Distillation"] = (
            f"{distill['method']}, {distill['steps']} steps, {distill['queries']:,} images shown to the teacher"
        )
    if "method" in quantize:
        trained = ", weights trained under rounding" if quantize["trained"] else ""
        card["Quantization"] = (
            f"{quantize['method']} calibration on generated images{trained}, "
            f"{100 * quantize['coverage']:.1f} % of the MACs in integers"
        )
    return card


def export_stage(run: RunDirectory, target: Target, precision: str, exporter: str | None = None) -> dict[str, Any]:
    """Write `bundles/<target>/` and its archive; returns the stage's result."""
    name = exporter or target.exporter
    artifacts = artifacts_of(run, target, precision)
    directory = bundle_dir(run, target)
    stage = stage_name("export", run, target)
    files = [models_dir(run, target) / f"{p}.onnx" for p in artifacts.models]
    found = find_exporter(name)
    inputs = digest_of([[sha256_of(f) for f in files], target.to_dict(), name, precision, found.programs()])
    if run.is_current(stage, inputs):
        record = run.stage(stage)
        assert record is not None
        return record.result
    bundle: Bundle = found.export(artifacts, target, directory)
    sizes = {v["precision"]: (directory / v["file"]).stat().st_size for v in bundle.manifest["variants"]}
    result = {
        "exporter": name,
        "directory": str(directory.relative_to(run.path)),
        "archive": str(bundle.archive.relative_to(run.path)),
        "primary": bundle.manifest["primary"],
        "precision": bundle.manifest["precision"],
        "sizes": sizes,
        "float_size": (models_dir(run, target) / "fp32.onnx").stat().st_size,
    }
    written = [bundle.archive, *(directory / file for file in [*bundle.manifest["files"], "manifest.json"])]
    run.finish(stage, inputs, written, result)
    read_bundle(directory)
    return result
