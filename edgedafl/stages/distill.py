"""Stage: teach the student, then write it with the calibration images it leaves behind."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgedafl.allocator import release_memory
from edgedafl.callbacks import OnProgress, silent
from edgedafl.distill import (
    Distillation,
    Distiller,
    DistributedContext,
    class_sheet,
    make_synthesizer,
    with_estimated_gradients,
)
from edgedafl.distill.training.budget import Budget
from edgedafl.errors import DistillationError, EnvironmentMissingError
from edgedafl.export import student_to_onnx
from edgedafl.files import write_atomic
from edgedafl.graph.edit import model_bytes
from edgedafl.quantize import CalibrationSet
from edgedafl.runs import AgreementReport, DistillResult, Progress, RunDirectory
from edgedafl.stages.prepare import Plan
from edgedafl.stages.study import answers_to, resized
from edgedafl.tasks import Task, agreement, predictions
from edgedafl.teachers import TeacherSpec

__all__ = ["assist", "calibration_set", "distill_stage"]

_PROBES_KEPT = 2000
_NOTHING_TO_DO = -1.0
# Every process has random numbers of its own.
_SEEDS_APART = 100_003


def distill_stage(
    plan: Plan,
    run: RunDirectory,
    *,
    world: DistributedContext,
    resume: bool = False,
    on_progress: OnProgress = silent,
) -> DistillResult:
    """Distill unless this very student is there already.

    Args:
        plan: Made by `prepare`.
        run: Where everything is written.
        world: This process, the first of its world.
        resume: Go on from the checkpoint, where there is one.
        on_progress: Called with progress.

    Raises:
        DistillationError: If training collapsed beyond recovery.
        InterruptedRunError: On Ctrl-C; the checkpoint is written.
        EnvironmentMissingError: If the device has too little memory.

    Examples:
        >>> distill_stage(plan, RunDirectory("runs/mine"), world=init_distributed()).steps  # doctest: +SKIP
        1200
    """
    if known := run.current("distill", plan.identity, DistillResult):
        world.broadcast(_NOTHING_TO_DO)
        return known

    if not plan.trains and not (resume and run.checkpoint_path.exists()):
        world.broadcast(_NOTHING_TO_DO)
        return _untrained(plan, run)

    def report(progress: Progress) -> None:
        run.append_metrics(progress.to_dict())
        on_progress(progress)

    release_memory()  # of the ladder
    resumed = resume and run.checkpoint_path.exists()
    world.broadcast(float(resumed))  # the other processes wait for this in `assist`
    if not resumed:
        run.metrics_path.unlink(missing_ok=True)
    method, distiller = _distiller(plan, world, run.checkpoint_path, report)
    begun = copy.deepcopy(plan.student.module.state_dict()) if plan.student.spec.inherited else None
    try:
        outcome = _trained(distiller, plan, resumed)
    except DistillationError as error:
        if begun is None or plan.study is None:
            raise
        plan.teacher.to("cpu")
        plan.student.module.to("cpu").load_state_dict(begun)
        return _untrained(plan, run, failed=error.message)
    kept = _better_weights(plan, outcome.student, begun)
    result = _result(outcome, plan, method, trained=kept)
    run.finish("distill", plan.identity, _write(outcome, plan, run), result)
    run.remove_checkpoint()
    return result


def _result(outcome: Distillation, plan: Plan, method: str, *, trained: bool) -> DistillResult:
    return DistillResult(
        method=method,
        trained=trained,
        steps=outcome.steps,
        seconds=outcome.seconds,
        queries=outcome.queries,
        agreement=outcome.agreement,
        recoveries=tuple(outcome.recoveries),
        images_per_second=outcome.images_per_second,
        share_of_bare_step=outcome.images_per_second / max(outcome.bare_images_per_second, 1e-9),
        warnings=_warnings(plan),
    )


def _warnings(plan: Plan) -> tuple[str, ...]:
    return (plan.preflight.warning,) if plan.preflight.warning else ()


def assist(plan: Plan, run: RunDirectory, world: DistributedContext) -> None:
    """Distill together with the first process, which writes everything.

    Examples:
        >>> assist(plan, RunDirectory("runs/mine"), init_distributed())  # by all but the first  # doctest: +SKIP
    """
    (order,) = world.broadcast(0.0)
    if order != _NOTHING_TO_DO:
        _, distiller = _distiller(plan, world, run.checkpoint_path, lambda progress: None)
        _trained(distiller, plan, bool(order))


def _distiller(
    plan: Plan, world: DistributedContext, checkpoint: Path, on_progress: OnProgress
) -> tuple[str, Distiller]:
    torch.set_num_threads(plan.config.threads or torch.get_num_threads())
    torch.manual_seed(plan.config.seed + _SEEDS_APART * world.rank)
    teacher = with_estimated_gradients(plan.config.method, plan.teacher)
    method, synthesizer = make_synthesizer(
        plan.config.method, teacher, world.device, inherited=plan.student.spec.inherited
    )
    if plan.study is not None:
        synthesizer.use_priors(plan.study.companions.priors)
    distiller = Distiller(
        teacher,
        plan.student,
        synthesizer,
        budget=Budget(plan.seconds, plan.config.steps),
        world=world,
        pool_memory=plan.config.pool_memory,
        checkpoint=checkpoint,
        on_progress=on_progress,
        fidelity=_predictor(plan),
    )
    return method, distiller


def _predictor(plan: Plan) -> Callable[[Callable[[Tensor], Tensor]], float | None] | None:
    """Predicts fidelity while a student is trained; None where nothing is known to predict it from."""
    study, spec = plan.study, plan.student.spec
    if study is None or spec.input_shape != plan.teacher.spec.input_shape:
        return None

    def fidelity(scores_of: Callable[[Tensor], Tensor]) -> float | None:
        band = study.band(scores_of)
        return None if band is None else band.fidelity

    return fidelity


def _better_weights(plan: Plan, student: nn.Module, begun: dict[str, Any] | None) -> bool:
    """Go back to the refitted weights where training has made the student less faithful; returns what was kept."""
    if begun is None or plan.study is None:
        return True
    after = plan.study.band(_scores_of(student))
    trained = copy.deepcopy(student.state_dict())
    student.load_state_dict(begun)
    before = plan.study.band(_scores_of(student))
    if before is not None and after is not None and before.fidelity > after.fidelity:
        return False
    student.load_state_dict(trained)
    return True


def _scores_of(student: nn.Module) -> Callable[[Tensor], Tensor]:
    student.eval()
    return student


def _untrained(plan: Plan, run: RunDirectory, failed: str = "") -> DistillResult:
    """Write the refitted student as it is, with calibration images from the study.

    Args:
        plan: The plan.
        run: Where to.
        failed: Why it is not trained, where that was tried.
    """
    study, spec = plan.study, plan.student.spec
    assert study is not None
    module = plan.student.module.eval()
    sides = (spec.input_shape[1], spec.input_shape[2])
    calibration = study.calibration(plan.fitting, sides, plan.config.seed)
    write_atomic(run.student, model_bytes(student_to_onnx(module, spec.input_shape)))
    calibration.save(run.calibration)
    task = plan.teacher.spec.task
    shares = {}
    for kind, own in study.judged.items():
        found = answers_to(lambda images: module(resized(images, sides)), own.images)
        shares[kind] = agreement(predictions(found, task), predictions(own.logits, task))
    pixels = torch.from_numpy(calibration.training_pixels)
    sheet = _sheet(pixels, torch.from_numpy(calibration.training_logits), task, run)
    result = DistillResult(
        method="none: refitted without training" if spec.width < 1 else "none: the teacher's own weights",
        trained=False,
        steps=0,
        seconds=0.0,
        queries=plan.teacher.queries,
        agreement=AgreementReport(shares, sum(shares.values()) / len(shares), min(shares.values())),
        recoveries=(f"{failed} The refitted student is kept.",) if failed else (),
        warnings=_warnings(plan),
    )
    run.finish("distill", plan.identity, [run.student, run.calibration, sheet], result)
    return result


def _trained(distiller: Distiller, plan: Plan, resume: bool) -> Distillation:
    try:
        outcome = distiller.run(resume=resume)
    except torch.OutOfMemoryError as error:
        raise EnvironmentMissingError(
            f"The GPU has too little memory: {str(error).splitlines()[0]}",
            "Lower --pool-memory, choose a smaller --student, or train with --accelerator cpu.",
        ) from error
    # What follows (export, verification) runs on the CPU.
    plan.teacher.to("cpu")
    outcome.student.to("cpu")
    return outcome


def _write(outcome: Distillation, plan: Plan, run: RunDirectory) -> list[Path]:
    spec = plan.teacher.spec
    model = student_to_onnx(outcome.student, spec.input_shape)
    write_atomic(run.student, model_bytes(model))
    calibration_set(outcome, spec, seed=plan.config.seed).save(run.calibration)
    pixels, logits = outcome.pool.pixels().cpu(), outcome.pool.logits().cpu()
    newest = slice(-min(len(pixels), 8000), None)
    return [run.student, run.calibration, _sheet(pixels[newest], logits[newest], spec.task, run)]


def _sheet(pixels: Tensor, logits: Tensor, task: Task, run: RunDirectory) -> Path:
    image = io.BytesIO()
    class_sheet(pixels, logits, task).save(image, "png")
    write_atomic(run.samples, image.getvalue())
    return run.samples


def calibration_set(outcome: Distillation, spec: TeacherSpec, *, seed: int) -> CalibrationSet:
    """Images of a distillation's pool to calibrate and to train on, and its probes to choose by.

    Examples:
        >>> outcome = distiller.run()  # doctest: +SKIP
        >>> calibration_set(outcome, distiller.teacher.spec, seed=0).pixels.shape  # doctest: +SKIP
    """
    pixels, logits = outcome.pool.pixels().cpu(), outcome.pool.logits().cpu()
    probe_pixels, probe_classes = _probes(outcome)
    return CalibrationSet.balanced(
        pixels.numpy(),
        predictions(logits.numpy(), spec.task),
        logits=logits.float().numpy(),
        task=spec.task,
        probe_pixels=probe_pixels,
        probe_classes=probe_classes,
        preprocess=spec.preprocess,
        seed=seed,
    )


def _probes(outcome: Distillation) -> tuple[Any, Any]:
    """The generated probe sets, newest first, up to a fixed count."""
    import numpy as np

    names = [n for n in outcome.probes.names if n.startswith("generated")] or outcome.probes.names
    pixels = np.concatenate([outcome.probes.pixels(n).cpu().numpy() for n in reversed(names)])
    classes = np.concatenate([outcome.probes.classes(n).cpu().numpy() for n in reversed(names)])
    return pixels[:_PROBES_KEPT], classes[:_PROBES_KEPT]
