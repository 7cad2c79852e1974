"""Images per second of two processes against one, the same threads each.

    python -m benchmarks.scale --data DIR

Starts itself under torchrun (gloo on CPUs, NCCL with --device cuda), once with one process and once
with each count asked for, in turn.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.common import print_rows, student_for, write_result
from benchmarks.suites import SUITES
from edgedafl.distill import Budget, Distiller, init_distributed, make_synthesizer

_MARK = "images per second: "


def work(args: argparse.Namespace) -> None:
    """One process of a run."""
    torch.set_num_threads(args.threads)
    world = init_distributed(args.device)
    teacher = SUITES[args.suite].teacher(args.data.parent / "models")
    torch.manual_seed(world.rank)
    student = student_for(args.student or SUITES[args.suite].student, teacher)
    _, synthesizer = make_synthesizer(args.method, teacher, world.device, inherited=student.spec.inherited)
    run = Distiller(teacher, student, synthesizer, budget=Budget(steps=args.steps), world=world)
    outcome = run.run()
    recipe = synthesizer.recipe
    images = outcome.steps * recipe.student_steps * recipe.student_batch * world.size
    if world.is_main_process:
        print(f"{_MARK}{images / outcome.seconds}", flush=True)


def measured(processes: int, args: argparse.Namespace) -> float:
    """Images per second of a whole run."""
    own = ["--data", str(args.data), "--suite", args.suite, "--steps", str(args.steps), "--method", args.method]
    own += ["--threads", str(args.threads), "--device", args.device, "--worker"]
    own += ["--student", args.student] if args.student else []
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*command, "-m", "benchmarks.scale", *own], capture_output=True, text=True, check=True, timeout=1200
    )
    return float(next(line for line in done.stdout.splitlines() if line.startswith(_MARK)).removeprefix(_MARK))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--suite", default="mnist-lenet5", choices=SUITES)
    parser.add_argument("--student")
    parser.add_argument("--method", default="adversarial")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, nargs="+", default=[2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--no-write", action="store_true")
    args = parser.parse_args()
    if args.worker:
        work(args)
        return
    counts = [1, *args.processes]
    found: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(args.rounds):
        for count in counts:
            found[count].append(measured(count, args))
    rates = {count: statistics.median(values) for count, values in found.items()}
    print_rows(
        ["processes", "images/s", "against one"],
        [[str(count), f"{rate:.0f}", f"{rate / rates[1]:.2f}"] for count, rate in rates.items()],
    )
    if not args.no_write:
        settings = {k: v for k, v in vars(args).items() if k not in ("data", "worker", "no_write")}
        write_result("scale", {**settings, "images_per_second": {str(count): rate for count, rate in rates.items()}})


if __name__ == "__main__":
    main()
