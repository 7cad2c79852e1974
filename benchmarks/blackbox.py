"""Students of teachers that only answer: accuracy against queries.

    python -m benchmarks.blackbox --data DIR --seeds 0 1 2

The teacher is the example's ONNX file behind ONNX Runtime, of which scores or labels may be used.
The student is the average of weights at the end, never chosen by test data.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import EXAMPLE, print_rows, write_result
from benchmarks.data import DATASETS
from benchmarks.distill import changed, percent
from edgedafl.distill import BlackBoxSettings, BlackBoxSynthesizer, Budget, Distiller
from edgedafl.runs import Progress
from edgedafl.students import build_student
from edgedafl.teachers import Teacher, TeacherOptions, load_teacher

# The hardest that is asked of us; fewer queries are a trial's business.
BUDGETS = {"scores": 200_000, "labels": 100_000}


def teacher_of(access: str, queries: int) -> Teacher:
    options = TeacherOptions(mean=(0.1307,), std=(0.3081,), access=access, max_queries=queries)
    return load_teacher(str(EXAMPLE / "teacher.onnx"), options)


def run(access: str, queries: int, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    teacher = teacher_of(access, queries)
    # A second copy judges, so that the judging counts no query.
    judge = teacher_of("scores", 10**9)
    test = DATASETS["mnist"](args.data, "test", teacher.spec.input_shape)
    torch.manual_seed(seed)
    student = build_student("lenet5-half", teacher.spec.input_shape, teacher.spec.num_classes)
    settings = changed(BlackBoxSettings(), args.set)
    synthesizer = BlackBoxSynthesizer(teacher, settings=settings)
    curve: list[tuple[float, int, float]] = []

    def watch(progress: Progress) -> None:
        if args.curve and (not curve or progress.seconds - curve[-1][0] >= args.curve):
            curve.append((progress.seconds, progress.queries, percent(distiller.best, judge, test)))
            print(f"  {access} seed {seed} {progress.seconds:.0f} s {progress.queries} queries {curve[-1][2]:.2f}")

    budget = Budget(args.seconds, args.steps)
    distiller = Distiller(teacher, student, synthesizer, budget=budget, on_progress=watch)
    start = time.monotonic()
    outcome = distiller.run()
    return {
        "access": access,
        "seed": seed,
        "accuracy": percent(outcome.student, judge, test),
        "queries": outcome.queries,
        "max_queries": queries,
        "steps": outcome.steps,
        "seconds": time.monotonic() - start,
        "families": synthesizer.priors.shares,
        "curve": curve,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist/")
    parser.add_argument("--access", nargs="+", default=list(BUDGETS), choices=list(BUDGETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--steps", type=int, help="steps instead of seconds, for trials")
    parser.add_argument("--queries", type=int, help="another query limit")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--curve", type=float, default=0.0, help="seconds between looks at the test set")
    parser.add_argument("--set", nargs="*", default=[], help="name=value of BlackBoxSettings, for trials")
    parser.add_argument("--no-write", action="store_true", help="do not write the result file")
    args = parser.parse_args()
    if args.steps:
        args.seconds = None
    torch.set_num_threads(args.threads)
    rows = []
    for access in args.access:
        for seed in args.seeds:
            rows.append(run(access, args.queries or BUDGETS[access], seed, args))
            print({k: v for k, v in rows[-1].items() if k not in ("curve", "families")}, flush=True)
    table = []
    for access in args.access:
        mine = [r for r in rows if r["access"] == access]
        found = [r["accuracy"] for r in mine]
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        table.append(
            [
                access,
                f"{statistics.mean(found):.2f} ± {spread:.2f}",
                f"{min(found):.2f}",
                f"{max(r['queries'] for r in mine):,}",
                f"{max(r['seconds'] for r in mine):.0f}",
                str(len(found)),
            ]
        )
    print_rows(["access", "test accuracy, %", "worst seed", "queries", "seconds", "seeds"], table)
    if not args.no_write:
        write_result("blackbox", {"runs": rows})


if __name__ == "__main__":
    main()
