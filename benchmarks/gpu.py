"""Is a device used fully? The engine's student step against a bare loop of the same two networks.

    python -m benchmarks.gpu speed --data DIR --device cuda
    python -m benchmarks.gpu check --data DIR --device cuda

`speed` times the step that a distillation spends nearly all its time in (draw, vary, ask the
teacher, learn) in several settings of the device, each interleaved with a loop written by hand
that does nothing but teacher, loss, student and optimizer on images that are already there.
`check` takes one step of each gradient method on the device and looks for NaN. Both run on CPUs as
well.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import interleaved, print_rows, student_for, write_result
from benchmarks.suites import SUITES
from edgedafl.distill import METHODS, Batch, DistributedContext, settings_of
from edgedafl.distill.synthesizers import FastSettings, FastSynthesizer
from edgedafl.distill.training.augment import Augmentation
from edgedafl.distill.training.compute import Compute
from edgedafl.distill.training.cuda_graph import CudaGraphStep
from edgedafl.distill.training.losses import distillation_loss
from edgedafl.distill.training.trainer import StudentTrainer
from edgedafl.students import build_student
from edgedafl.teachers import Teacher

_ROWS = 4096


@dataclass(frozen=True)
class Variant:
    """One way to use a device."""

    name: str
    low_precision: bool
    compiled: bool = False
    recorded: bool = False


VARIANTS = (
    Variant("float32", False),
    Variant("bfloat16", True),
    Variant("bfloat16, compiled", True, compiled=True),
    Variant("bfloat16, recorded", True, recorded=True),
)


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def bare(
    teacher: Teacher, student: nn.Module, batch: int, steps: int, compute: Compute, device: str
) -> Callable[[], None]:
    """Teacher, loss, student, SGD on one batch that lies there; nothing else."""
    student = copy.deepcopy(student).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    fused = device == "cuda"
    optimizer = torch.optim.SGD(student.parameters(), 0.1, momentum=0.9, weight_decay=1e-4, fused=fused)
    called: Callable[[Tensor], Tensor] = torch.compile(student) if compute.compiled else student
    images = torch.randn(batch, *teacher.spec.input_shape, device=device).contiguous(memory_format=torch.channels_last)

    def gradients(images: Tensor) -> tuple[Tensor, ...]:
        with compute.autocast():
            logits = teacher.scores(images)
            guess = called(images)
        loss = distillation_loss(guess.float(), logits.float(), 20.0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return (loss.detach(),)

    step = CudaGraphStep(gradients, student) if compute.recorded else gradients

    def run() -> None:
        for _ in range(steps):
            step(images)
            optimizer.step()

    return run


def engine(teacher: Teacher, name: str, batch: int, steps: int, compute: Compute, device: str) -> Callable[[], None]:
    """The engine's own steps on a pool of random images, as the `fast` method takes them."""
    default = FastSettings()
    recipe = replace(default.recipe, student_batch=batch, student_steps=steps, pool=_ROWS, begin=1, augment=False)
    synthesizer = FastSynthesizer(teacher, settings=replace(default, recipe=recipe), device=device)
    # Set here and not found out: random images need not keep their class, and the step must ask the teacher.
    synthesizer.augmentation = Augmentation(shift=4, mirror=True)
    student = build_student(name, teacher.spec.input_shape, teacher.spec.num_classes)
    trainer = StudentTrainer(
        student, teacher, synthesizer, DistributedContext(device=torch.device(device)), compute, 1 << 30
    )
    images = torch.randn(_ROWS, *teacher.spec.input_shape, device=device)
    trainer.pool.add(images, torch.zeros(_ROWS, teacher.spec.num_classes, device=device))
    batch_of_none = Batch.nothing(teacher.spec, device)
    return lambda: trainer.learn(batch_of_none, 0.5) and None


def speed(args: argparse.Namespace) -> dict[str, Any]:
    suite = SUITES[args.suite]
    rows = []
    for variant in VARIANTS:
        if args.device == "cpu" and variant.low_precision:
            continue
        if variant.compiled and not args.compile:
            continue
        compute = Compute(args.device, variant.low_precision, variant.compiled, variant.recorded)
        teacher = suite.teacher(args.data.parent / "models").to(args.device)
        name = args.student or suite.student
        student = build_student(name, teacher.spec.input_shape, teacher.spec.num_classes).module
        ours = engine(teacher, name, args.batch, args.steps, compute, args.device)
        by_hand = bare(teacher, student, args.batch, args.steps, compute, args.device)
        mine, theirs = interleaved(
            [ours, by_hand],
            args.rounds,
            warm_up=1,  # compiles
            settle=lambda: synchronize(args.device),
        )
        images = args.batch * args.steps
        rows.append(
            {
                "variant": variant.name,
                "engine_images_per_second": images / mine,
                "bare_images_per_second": images / theirs,
                "share": theirs / mine,
            }
        )
        print(rows[-1], flush=True)
    print_rows(
        ["setting", "engine, images/s", "bare loop, images/s", "share"],
        [
            [
                r["variant"],
                f"{r['engine_images_per_second']:.0f}",
                f"{r['bare_images_per_second']:.0f}",
                f"{r['share']:.0%}",
            ]
            for r in rows
        ],
    )
    return {"suite": args.suite, "batch": args.batch, "device": args.device, "rows": rows}


def check(args: argparse.Namespace) -> dict[str, Any]:
    """One small step of every gradient method on the device: finite, and of the right shape."""
    suite = SUITES[args.suite]
    teacher = suite.teacher(args.data.parent / "models").to(args.device)
    student = student_for(args.student or suite.student, teacher).module
    student = student.to(args.device)
    rows = []
    for method, entry in METHODS.items():
        if not entry.gradient:
            continue
        _, settings = settings_of(method, teacher)
        synthesizer = entry.build(teacher, settings=replace(settings, batch=32), device=args.device)
        with Compute.of(args.device).autocast():
            batch = synthesizer.step(teacher, student, 0.5)
        fine = bool(torch.isfinite(batch.images).all()) and bool(torch.isfinite(batch.logits).all())
        rows.append({"method": method, "finite": fine, "device": str(batch.images.device), "rows": len(batch.images)})
        print(rows[-1], flush=True)
    if not all(r["finite"] for r in rows):
        raise SystemExit("a method gave NaN or infinity")
    return {"suite": args.suite, "device": args.device, "rows": rows}


PARTS = {"speed": speed, "check": check}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--suite", default="cifar10-resnet20", choices=SUITES)
    parser.add_argument("--student", help="another student than the suite's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--compile", action="store_true", help="torch.compile as well, which takes its time")
    parser.add_argument("--steps", type=int, default=20, help="student steps per measurement")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for part in args.parts:
        result = PARTS[part](args)
        if not args.no_write:
            write_result(f"gpu-{part}-{args.device}", result)


if __name__ == "__main__":
    main()
