"""Stage: teach the student, then write it with the calibration images it leaves behind."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgedafl.distill import Distillation, Distiller, Progress, as_asked, class_sheet, make_synthesizer
from edgedafl.distill.budget import Budget
from edgedafl.export import student_to_onnx
from edgedafl.graph.edit import model_bytes
from edgedafl.quantize import CalibrationSet
from edgedafl.rundir import RunDirectory, write_atomic
from edgedafl.stages.prepare import Plan
from edgedafl.tasks import predictions

__all__ = ["CALIBRATION", "STUDENT", "distill_stage"]

STUDENT = "student.onnx"
CALIBRATION = "calibration.npz"
_PROBES_KEPT = 2000


def distill_stage(
    plan: Plan,
    run: RunDirectory,
    *,
    resume: bool = False,
    observe: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Distill unless this very student is there already; returns the stage's result.

    Raises:
        DistillationError: If training collapsed beyond recovery.
        InterruptedRunError: On Ctrl-C; the checkpoint is written.
    """
    if run.is_current("distill", plan.identity):
        record = run.stage("distill")
        assert record is not None
        return record.result
    import torch

    torch.set_num_threads(plan.config.threads or torch.get_num_threads())
    torch.manual_seed(plan.config.seed)
    teacher = as_asked(plan.config.method, plan.teacher)
    method, synthesizer = make_synthesizer(plan.config.method, teacher)

    def notice(progress: Progress) -> None:
        run.append_metrics(progress.to_dict())
        observe(progress)

    distiller = Distiller(
        teacher,
        plan.student,
        synthesizer,
        budget=Budget(plan.config.seconds, plan.config.steps),
        checkpoint=run.checkpoint_path,
        observe=notice,
    )
    resumed = resume and run.checkpoint_path.exists()
    if not resumed:
        run.metrics_path.unlink(missing_ok=True)
    outcome = distiller.run(resume=resumed)
    files = _write(outcome, plan, run)
    result = {
        "method": method,
        "steps": outcome.steps,
        "seconds": outcome.seconds,
        "queries": outcome.queries,
        "agreement": vars(outcome.agreement),
        "recoveries": list(outcome.recoveries),
        "warnings": [plan.preflight.warning] if plan.preflight.warning else [],
    }
    run.finish("distill", plan.identity, files, result)
    return result


def _write(outcome: Distillation, plan: Plan, run: RunDirectory) -> list[Path]:
    spec = plan.teacher.spec
    model = student_to_onnx(outcome.student, spec.input_shape)
    student, calibration = run.path / STUDENT, run.path / CALIBRATION
    write_atomic(student, model_bytes(model))
    pixels, logits = outcome.pool.pixels().cpu(), outcome.pool.logits().cpu()
    probe_pixels, probe_classes = _probes(outcome)
    CalibrationSet.balanced(
        pixels.numpy(),
        predictions(logits.numpy(), spec.task),
        task=spec.task,
        probe_pixels=probe_pixels,
        probe_classes=probe_classes,
        preprocess=spec.preprocess,
        seed=plan.config.seed,
    ).save(calibration)
    picture = run.path / "samples" / "classes.png"
    newest = slice(-min(len(pixels), 8000), None)
    image = io.BytesIO()
    class_sheet(pixels[newest], logits[newest], spec.task).save(image, "png")
    write_atomic(picture, image.getvalue())
    return [student, calibration, picture]


def _probes(outcome: Distillation) -> tuple[Any, Any]:
    """The generated probe sets, newest first, up to a fixed count."""
    import numpy as np

    names = [n for n in outcome.probes.names if n.startswith("generated")] or outcome.probes.names
    pixels = np.concatenate([outcome.probes.pixels(n).cpu().numpy() for n in reversed(names)])
    classes = np.concatenate([outcome.probes.classes(n).cpu().numpy() for n in reversed(names)])
    return pixels[:_PROBES_KEPT], classes[:_PROBES_KEPT]
