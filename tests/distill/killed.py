"""What the SIGKILL test runs: a distillation that saves every few steps and goes on where it can.

killed.py TEACHER CHECKPOINT METHOD STEPS OUT
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from edgedafl.distill import METHODS, Budget, Distiller, settings_of
from edgedafl.distill.monitoring import reporter
from edgedafl.stages import pruner_of
from edgedafl.students import build_student
from edgedafl.teachers import TeacherOptions, load_onnx_teacher

SMALL: dict[str, dict[str, object]] = {
    "adversarial": {"lives": 2, "min_restart_steps": 3, "priors": 16, "prior_trial": 20, "batch": 32, "channels": 8},
    "fast": {"batch": 32, "channels": 8, "latent": 16},
    "inversion": {"batch": 16, "iterations": 6, "per_step": 2},
    "dfad": {"batch": 16, "channels": 8},
}


def distiller(teacher_path: Path, method: str, steps: int, checkpoint: Path | None) -> Distiller:
    """The same run every time; `pruned` is the default method with a student cut out of the teacher."""
    teacher = load_onnx_teacher(teacher_path, TeacherOptions(input_range=(0.0, 1.0)))
    torch.manual_seed(0)
    if method == "pruned":
        student, method = pruner_of(teacher).student("pruned:0.5"), "adversarial"
    else:
        student = build_student("lenet5", teacher.spec.input_shape, teacher.spec.num_classes)
    name, default = settings_of(method, teacher)
    recipe = replace(default.recipe, student_steps=3, student_batch=16, begin=min(default.recipe.begin, 16))
    recipe = replace(recipe, pool=min(recipe.pool, 4000), student_rate=1e-3)
    settings = replace(default, recipe=recipe, **SMALL[method])
    synthesizer = METHODS[name].build(teacher, settings=settings)
    return Distiller(teacher, student, synthesizer, budget=Budget(steps=steps), checkpoint=checkpoint)


def main() -> None:
    teacher, checkpoint, out = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[5])
    torch.set_num_threads(1)
    reporter._SAVE_SECONDS = 0.2
    run = distiller(teacher, sys.argv[3], int(sys.argv[4]), checkpoint)
    outcome = run.run(resume=checkpoint.exists())
    torch.save(outcome.student.state_dict(), out)


if __name__ == "__main__":
    main()
