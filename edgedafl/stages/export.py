"""Stage: a bundle for the target."""

from __future__ import annotations

from typing import Any

from edgedafl.errors import UsageError
from edgedafl.export import Artifacts, Bundle, find_exporter, read_bundle
from edgedafl.files import digest_of
from edgedafl.graph.load import sha256_of
from edgedafl.graph.peak_memory import peak_memory
from edgedafl.quantize import CalibrationSet
from edgedafl.runs import DistillResult, ExportResult, QuantizeResult, RunDirectory, RunRecord
from edgedafl.stages.quantize import load_models
from edgedafl.targets import Target

__all__ = ["artifacts_of", "export_stage"]

_EXAMPLES = 16
_CALIBRATION = 128


def artifacts_of(run: RunDirectory, target: Target, precision: str) -> Artifacts:
    """What there is to ship for a target.

    Raises:
        UsageError: If the student was not quantized for it.

    Examples:
        >>> from edgedafl.targets import find_target
        >>> artifacts = artifacts_of(RunDirectory("runs/teacher-rpi4"), find_target("rpi4"), "int8")
        >>> sorted(artifacts.models)
        ['fp16', 'fp32', 'int8']
    """
    models = load_models(run, target)
    if precision not in models:
        raise UsageError(
            f"{str(run.path)!r} holds no {precision} model for {target.name}.",
            f"Run `edgedafl quantize {run.path} --target {target.name}` first.",
        )
    if target.runtime == "tensorrt":
        models.pop("fp32", None)  # fp16 is the float form that Jetsons run
    calibration, record = CalibrationSet.load(run.calibration), run.record()
    quantized = run.result(run.stage_name("quantize", target.name), QuantizeResult)
    return Artifacts(
        models=models,
        primary=precision if precision in models else "fp16",
        name=record.student.name,
        preprocess=calibration.preprocess.to_dict() | _middle(record),
        inputs=calibration.probe_images(_EXAMPLES),
        provenance={
            "teacher_sha256": record.teacher.sha256,
            "seed": record.config.seed,
            "versions": record.versions,
            "calibration": calibration.digest,
        },
        calibration=calibration.images(_CALIBRATION),
        agreements={} if quantized is None else quantized.agreements,
        card=_card(record, record.distilled, quantized),
        labels=tuple(run.classes.read_text("utf-8").splitlines()) if run.classes.is_file() else (),
    )


def _middle(record: RunRecord) -> dict[str, Any]:
    """What of an image is shrunk, where the student takes smaller images than its teacher."""
    return {} if record.middle == 1 else {"middle": round(record.middle, 4)}


def _card(record: RunRecord, distilled: DistillResult | None, quantized: QuantizeResult | None) -> dict[str, str]:
    student = record.student
    card = {
        "Student": f"{student.name}, {student.parameters:,} weights, {student.macs:,} MACs per image, "
        f"{student.num_classes} classes ({record.teacher.task})",
    }
    if distilled is not None:
        card["Distillation"] = (
            f"{distilled.method}, {distilled.steps} steps, {distilled.queries:,} images shown to the teacher"
        )
    if quantized is not None and quantized.method:
        trained = ", weights from quantization-aware training" if quantized.trained else ""
        card["Quantization"] = (
            f"{quantized.method} calibration on generated images{trained}{quantized.in_bits}, "
            f"{100 * (quantized.coverage or 0):.1f} % of the MACs in integers"
        )
    return card


def export_stage(run: RunDirectory, target: Target, precision: str, exporter: str | None = None) -> ExportResult:
    """Write `bundles/<target>/` and its archive.

    Examples:
        >>> from edgedafl.targets import find_target
        >>> export_stage(RunDirectory("runs/teacher-rpi4"), find_target("rpi4"), "int8").exporter
        'onnx'
    """
    name = exporter or target.exporter
    artifacts = artifacts_of(run, target, precision)
    directory = run.bundle(target.name)
    stage = run.stage_name("export", target.name)
    files = [run.models(target.name) / f"{p}.onnx" for p in artifacts.models]
    found = find_exporter(name)
    inputs = digest_of(
        [[sha256_of(f) for f in files], target.to_dict(), name, precision, found.executables(), [*artifacts.labels]]
    )
    if known := run.current(stage, inputs, ExportResult):
        return known
    bundle: Bundle = found.export(artifacts, target, directory)
    result = ExportResult(
        exporter=name,
        directory=str(directory.relative_to(run.path)),
        archive=str(bundle.archive.relative_to(run.path)),
        primary=str(bundle.manifest["primary"]),
        precision=str(bundle.manifest["precision"]),
        sizes={v["precision"]: (directory / v["file"]).stat().st_size for v in bundle.manifest["variants"]},
        float_size=(run.models(target.name) / "fp32.onnx").stat().st_size,
        memory={
            p: peak_memory(m, architecture=target.architecture, runtime=target.runtime).peak
            for p, m in artifacts.models.items()
        },
    )
    written = [bundle.archive, *(directory / file for file in [*bundle.manifest["files"], "manifest.json"])]
    run.finish(stage, inputs, written, result)
    read_bundle(directory)
    return result
