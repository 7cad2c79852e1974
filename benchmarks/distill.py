"""Accuracy of distilled students, beside published DAFL at equal time, noise and real data.

    python -m benchmarks.distill mnist-lenet5 --data DIR --seeds 0 1 2
    python -m benchmarks.distill cifar10-resnet20 --data DIR --methods auto --curve 600

The student is the average of weights at the end of the budget, never chosen by test data; test
images are read after training is over. `--curve` also evaluates now and then while training, which
costs time but chooses nothing. Suites whose teacher is trained here need
`python -m benchmarks.train_teachers` first.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.baselines import NoiseSynthesizer, RealSynthesizer
from benchmarks.common import print_rows, student_for, write_result
from benchmarks.suites import SUITES, Suite
from edgedafl.distill import METHODS, Budget, Distiller, DistributedContext, Synthesizer, settings_of
from edgedafl.evaluate import accuracy
from edgedafl.files.labelled_arrays import LabelledData
from edgedafl.runs import Progress
from edgedafl.teachers import Teacher

BASELINES = ("noise", "real")
CHOICES = ("auto", *METHODS, *BASELINES)


def percent(module: torch.nn.Module, teacher: Teacher, test: LabelledData, device: str = "cpu") -> float:
    was_training = module.training
    module.eval()
    spec = teacher.spec
    with torch.no_grad():
        share = accuracy(
            test,
            spec.preprocess,
            lambda x: module(torch.from_numpy(x).to(device)).float().cpu().numpy(),
            task=spec.task,
        )
    module.train(was_training)
    return 100 * share


def synthesizer_of(
    method: str, suite: Suite, teacher: Teacher, args: argparse.Namespace, *, inherited: bool
) -> tuple[str, Synthesizer]:
    name, default = settings_of("auto" if method in BASELINES else method, teacher, inherited=inherited)
    settings = changed(default, args.set)
    if method == "noise":
        return method, NoiseSynthesizer(teacher, settings.recipe, args.device)
    if method == "real":
        data = suite.data(args.data, "train", teacher.spec.input_shape)
        return method, RealSynthesizer(teacher, settings.recipe, data, args.device)
    return name, METHODS[name].build(teacher, settings=settings, device=args.device)


def changed(settings: Any, pairs: list[str]) -> Any:
    """Settings with other values; names that they do not have are those of their recipe."""
    values = dict(parse(pair) for pair in pairs)
    own = {f.name for f in dataclasses.fields(settings)}
    recipe = dataclasses.replace(settings.recipe, **{k: v for k, v in values.items() if k not in own})
    return dataclasses.replace(settings, recipe=recipe, **{k: v for k, v in values.items() if k in own})


def run(suite: Suite, method: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    teacher = suite.teacher(args.data.parent / "models")
    spec = teacher.spec
    test = suite.data(args.data, "test", spec.input_shape)
    torch.manual_seed(seed)
    student = student_for(args.student or suite.student, teacher, method if method in METHODS else "auto")
    name, synthesizer = synthesizer_of(method, suite, teacher, args, inherited=student.spec.inherited)
    curve: list[tuple[float, float]] = []

    def watch(progress: Progress) -> None:
        if args.curve and (not curve or progress.seconds - curve[-1][0] >= args.curve):
            curve.append((progress.seconds, percent(distiller.best, teacher, test, args.device)))
            terms = " ".join(f"{k} {v:.3f}" for k, v in progress.losses.items())
            print(
                f"  {name} {seed} {progress.seconds:.0f} s step {progress.step} {curve[-1][1]:.2f} {terms}", flush=True
            )

    seconds = None if args.steps else args.seconds or suite.seconds
    budget = Budget(seconds, args.steps)
    distiller = Distiller(
        teacher,
        student,
        synthesizer,
        budget=budget,
        world=DistributedContext(device=torch.device(args.device)),
        on_progress=watch,
    )
    start = time.monotonic()
    outcome = distiller.run()
    seconds = time.monotonic() - start
    reference = accuracy(
        test,
        spec.preprocess,
        lambda x: teacher.scores(torch.from_numpy(x).to(args.device)).float().cpu().numpy(),
        task=spec.task,
    )
    return {
        "suite": args.suite,
        "method": name,
        "asked": method,
        "seed": seed,
        "student": student.spec.name.rpartition("/")[2],
        "parameters": student.spec.parameters,
        "accuracy": percent(outcome.student, teacher, test, args.device),
        "teacher_accuracy": 100 * reference,
        "agreement": 100 * outcome.agreement.generated,
        "steps": outcome.steps,
        "budget": args.seconds or suite.seconds,
        "seconds": seconds,
        "queries": outcome.queries,
        "recoveries": len(outcome.recoveries),
        "curve": curve,
    }


def parse(pair: str) -> tuple[str, float | int | str]:
    name, _, value = pair.partition("=")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def table(rows: list[dict[str, Any]]) -> list[list[str]]:
    """One line per method, and the teacher."""
    lines = []
    for method in dict.fromkeys(r["method"] for r in rows):
        mine = [r for r in rows if r["method"] == method]
        found = [r["accuracy"] for r in mine]
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        lines.append(
            [
                mine[0]["suite"],
                method,
                f"{statistics.mean(found):.2f} ± {spread:.2f}",
                f"{min(found):.2f}",
                f"{max(r['seconds'] for r in mine):.0f}",
                str(len(found)),
            ]
        )
    lines.append([rows[0]["suite"], "(teacher)", f"{rows[0]['teacher_accuracy']:.2f}", "", "", ""])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--data", type=Path, required=True, help="datasets; third-party models in ../models beside it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, help="budget; the suite's where not given")
    parser.add_argument("--steps", type=int, help="synthesizer steps instead of seconds, for trials")
    parser.add_argument("--methods", nargs="+", default=["auto"], choices=CHOICES)
    parser.add_argument("--student", help="another student than the suite's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--curve", type=float, default=0.0, help="seconds between looks at the test set")
    parser.add_argument("--set", nargs="*", default=[], help="name=value of the method's settings, for trials")
    parser.add_argument("--no-write", action="store_true", help="do not write the result file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for method in args.methods:
        for seed in args.seeds:
            rows.append(run(SUITES[args.suite], method, seed, args))
            print({k: v for k, v in rows[-1].items() if k != "curve"}, flush=True)
    print_rows(["suite", "method", "test accuracy, %", "worst seed", "seconds", "seeds"], table(rows))
    if not args.no_write:
        suffix = [args.student.replace(":", "-")] if args.student else []
        for method in dict.fromkeys(r["method"] for r in rows):
            write_result(
                "-".join(["distill", args.suite, method, *suffix]),
                {"device": args.device, "runs": [r for r in rows if r["method"] == method]},
            )


if __name__ == "__main__":
    main()
