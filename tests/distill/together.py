"""What each process of the two-process tests runs; started by torch.distributed.run.

together.py TEACHER OUT equal|pooled
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from edgedafl.distill import (
    AdversarialSettings,
    AdversarialSynthesizer,
    Budget,
    DaflSettings,
    DaflSynthesizer,
    Distiller,
    init_distributed,
)
from edgedafl.distill.distributed import DistributedContext
from edgedafl.students import build_student
from edgedafl.teachers import TeacherOptions, load_onnx_teacher

ROWS = 24
STEPS = 4


def published(teacher_path: Path, world: DistributedContext) -> Distiller:
    """DAFL as published whose codes are cut from one common list, whatever the number of processes."""
    teacher = load_onnx_teacher(teacher_path, TeacherOptions(input_range=(0.0, 1.0)))
    torch.manual_seed(0)
    student = build_student("lenet5", (1, 16, 16), 3)
    own = ROWS // world.size
    default = DaflSettings()
    settings = replace(
        default, batch=own, channels=8, learning_rate=1e-3, recipe=replace(default.recipe, student_batch=own)
    )
    synthesizer = DaflSynthesizer(teacher, settings=settings)
    codes = iter(torch.randn(STEPS, ROWS, settings.latent, generator=torch.Generator().manual_seed(5)))
    synthesizer.latents = lambda count: next(codes)[world.rank * own : (world.rank + 1) * own]  # type: ignore[method-assign]
    run = Distiller(teacher, student, synthesizer, budget=Budget(steps=STEPS), world=world)
    synthesizer.generator.load_state_dict(first_generator(synthesizer))
    return run


def first_generator(synthesizer: DaflSynthesizer) -> dict[str, torch.Tensor]:
    """The same starting weights for any number of processes."""
    numbers = torch.Generator().manual_seed(9)
    state = synthesizer.generator.state_dict()
    parameters = dict(synthesizer.generator.named_parameters())
    for name, value in parameters.items():
        scale = value.ndim == 1 and name.endswith("weight")  # of a BatchNorm
        state[name] = float(scale) + 0.1 * torch.randn(value.shape, generator=numbers)
    return state


def pooled(teacher_path: Path, world: DistributedContext, checkpoint: Path, steps: int) -> Distiller:
    """The default method with a small pool and a checkpoint."""
    teacher = load_onnx_teacher(teacher_path, TeacherOptions(input_range=(0.0, 1.0)))
    torch.manual_seed(world.rank)
    student = build_student("lenet5", (1, 16, 16), 3)
    default = AdversarialSettings()
    settings = replace(
        default,
        lives=1,
        priors=16,
        prior_trial=20,
        batch=32,
        channels=8,
        latent=16,
        recipe=replace(default.recipe, student_steps=4, student_batch=32, pool=4000),
    )
    synthesizer = AdversarialSynthesizer(teacher, settings=settings)
    return Distiller(teacher, student, synthesizer, budget=Budget(steps=steps), world=world, checkpoint=checkpoint)


def main() -> None:
    teacher, out, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    world = init_distributed("cpu")
    if kind == "equal":
        run = published(teacher, world)
        images = steps(run)
        state = {"student": run.trainer.student.state_dict(), "images": images}
    else:
        run = pooled(teacher, world, out.with_suffix(".checkpoint"), 12)
        outcome = run.run(resume=out.with_suffix(".checkpoint").exists())
        state = {"student": outcome.student.state_dict(), "pool": torch.tensor(len(outcome.pool))}
    torch.save(state, out.with_suffix(f".{world.rank}"))


def steps(run: Distiller) -> torch.Tensor:
    """Steps without probes, which would ask for codes of their own; returns the last images."""
    for _ in range(STEPS):
        batch = run._synthesize(0.0)
        run.trainer.learn(batch, 0.0)
    return batch.images


if __name__ == "__main__":
    main()
