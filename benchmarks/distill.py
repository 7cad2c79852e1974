"""Accuracy of distilled students, against published DAFL at equal time.

    python -m benchmarks.distill mnist-lenet5 --data ../shared/data --seeds 0 1 2

The student is the average of weights at the end of the budget, never chosen by test data; test
images are read after training is over. `--curve` also evaluates now and then while training, which
costs time but chooses nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import EXAMPLE, print_rows, read_idx, resized, write_result
from edgedafl.distill import (
    AdversarialSettings,
    AdversarialSynthesizer,
    Budget,
    DaflSynthesizer,
    Distiller,
    Progress,
)
from edgedafl.evaluate import LabelledData, accuracy
from edgedafl.students import build_student
from edgedafl.teachers import Teacher, TeacherOptions, load_teacher


@dataclass(frozen=True)
class Suite:
    """A teacher, its student and its test set."""

    model: Path
    options: TeacherOptions
    student: str
    dataset: str


SUITES = {
    "mnist-lenet5": Suite(
        EXAMPLE / "teacher.onnx", TeacherOptions(mean=(0.1307,), std=(0.3081,)), "lenet5-half", "mnist"
    ),
    "mnist-foreign": Suite(
        Path("models/cntk_mnist_onnx/mnist.onnx"), TeacherOptions(input_range=(0.0, 1.0)), "lenet5-half", "mnist"
    ),
    "fashion-cnn": Suite(
        Path("models/fashion_cnn/fashion_mnist.onnx"), TeacherOptions(input_range=(0.0, 1.0)), "lenet5", "fashion-mnist"
    ),
}


def test_set(data: Path, name: str, side: int) -> LabelledData:
    folder = data / name
    images = resized(read_idx(folder / "t10k-images-idx3-ubyte.gz"), side)
    return LabelledData(images, read_idx(folder / "t10k-labels-idx1-ubyte.gz").astype(np.int64))


def percent(module: torch.nn.Module, teacher: Teacher, test: LabelledData) -> float:
    was_training = module.training
    module.eval()
    with torch.no_grad():
        share = accuracy(test, teacher.spec.preprocess, lambda x: module(torch.from_numpy(x)).numpy())
    module.train(was_training)
    return 100 * share


def run(suite: Suite, data: Path, method: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    model = suite.model if suite.model.is_absolute() else data.parent / suite.model
    teacher = load_teacher(str(model), suite.options)
    test = test_set(data, suite.dataset, teacher.spec.input_shape[1])
    torch.manual_seed(seed)
    student = build_student(args.student or suite.student, teacher.spec.input_shape, teacher.spec.num_classes)
    if method == "dafl":
        synthesizer: Any = DaflSynthesizer(teacher)
    else:
        settings = dataclasses.replace(AdversarialSettings(), **dict(parse(pair) for pair in args.set))
        synthesizer = AdversarialSynthesizer(teacher, settings=settings)
    curve: list[tuple[float, float]] = []

    def watch(progress: Progress) -> None:
        if args.curve and (not curve or progress.seconds - curve[-1][0] >= args.curve):
            curve.append((progress.seconds, percent(distiller.best, teacher, test)))
            print(
                f"  {method} seed {seed} {progress.seconds:.0f} s step {progress.step} {curve[-1][1]:.2f}", flush=True
            )

    distiller = Distiller(teacher, student, synthesizer, budget=Budget(args.seconds), observe=watch)
    start = time.monotonic()
    outcome = distiller.run()
    return {
        "suite": args.suite,
        "method": method,
        "seed": seed,
        "accuracy": percent(outcome.student, teacher, test),
        "teacher_accuracy": 100
        * accuracy(test, teacher.spec.preprocess, lambda x: teacher.scores(torch.from_numpy(x)).numpy()),
        "agreement": 100 * outcome.agreement.generated,
        "steps": outcome.steps,
        "seconds": time.monotonic() - start,
        "queries": outcome.queries,
        "recoveries": len(outcome.recoveries),
        "curve": curve,
    }


def parse(pair: str) -> tuple[str, float | int]:
    name, _, value = pair.partition("=")
    return name, float(value) if "." in value else int(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with mnist/ and fashion-mnist/; foreign models lie in ../models beside it",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--methods", nargs="+", default=["adversarial", "dafl"], choices=["adversarial", "dafl"])
    parser.add_argument("--student", help="another student than the suite's")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--curve", type=float, default=0.0, help="seconds between looks at the test set")
    parser.add_argument("--set", nargs="*", default=[], help="name=value of AdversarialSettings, for trials")
    parser.add_argument("--no-write", action="store_true", help="do not write the result file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for method in args.methods:
        for seed in args.seeds:
            rows.append(run(SUITES[args.suite], args.data, method, seed, args))
            print({k: v for k, v in rows[-1].items() if k != "curve"}, flush=True)
    table = []
    for method in args.methods:
        found = [r["accuracy"] for r in rows if r["method"] == method]
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        seconds = max(r["seconds"] for r in rows if r["method"] == method)
        table.append(
            [
                args.suite,
                method,
                f"{statistics.mean(found):.2f} ± {spread:.2f}",
                f"{min(found):.2f}",
                f"{seconds:.0f}",
                str(len(found)),
            ]
        )
    table.append([args.suite, "(teacher)", f"{rows[0]['teacher_accuracy']:.2f}", "", "", ""])
    print_rows(["suite", "method", "test accuracy, %", "worst seed", "seconds", "seeds"], table)
    if not args.no_write:
        write_result(f"distill-{args.suite}", {"runs": rows})


if __name__ == "__main__":
    main()
