"""What eight bits cost a student, calibrated on generated and on real images.

    python -m benchmarks.quantization SUITE --data DIR [--seconds 120] [--teacher]

A student is distilled as the suite says and quantized for every target twice: on the generated
images of its own pool, as the product does, and on as many real training images. Both are judged on
the full test set, which chooses nothing. `--teacher` quantizes the teacher's own network instead
(for networks too slow to distill here); its calibration images still come from a distillation.
Beside it: integer coverage, and on this host the time of int8 against fp32, in turn, one thread.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.common import interleaved, print_rows, student_for, write_result
from benchmarks.suites import SUITES
from edgedafl.distill import Budget, Distillation, Distiller, make_synthesizer, with_estimated_gradients
from edgedafl.evaluate import accuracy
from edgedafl.export import student_to_onnx
from edgedafl.graph.coverage import integer_coverage
from edgedafl.graph.edit import fix_batch
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.quantize import CalibrationSet, quantize_model
from edgedafl.stages.distill import calibration_set
from edgedafl.stages.graphs import for_target
from edgedafl.targets import find_target
from edgedafl.teachers import TorchTeacher

TARGETS = ("x86", "raspberry-pi", "jetson")
_REAL_PROBES = 2000


def distilled(suite: Any, teacher: Any, seconds: float, seed: int) -> Distillation:
    torch.manual_seed(seed)
    student = student_for(suite.student, teacher)
    teacher = with_estimated_gradients("auto", teacher)
    _, synthesizer = make_synthesizer("auto", teacher, torch.device("cpu"), inherited=student.spec.inherited)
    return Distiller(teacher, student, synthesizer, budget=Budget(seconds, None)).run()


def real_calibration(generated: CalibrationSet, images: np.ndarray, model: onnx.ModelProto) -> CalibrationSet:
    """Real training images in place of the generated ones; the float model names the classes."""
    chosen = np.random.default_rng(0).permutation(len(images))
    count = len(generated.pixels)
    pixels, probes = images[chosen[:count]], images[chosen[count : count + _REAL_PROBES]]
    blank = CalibrationSet(pixels, probes, np.zeros(len(probes), np.int64), generated.preprocess, generated.task)
    classes = run_batched(open_session(model), blank.probe_images(), batch=1).argmax(1)
    return CalibrationSet(pixels, probes, classes, generated.preprocess, generated.task)


def speed_up(fp32: onnx.ModelProto, int8: onnx.ModelProto, image: np.ndarray) -> float:
    feed = {fp32.graph.input[0].name: image}
    sessions = [open_session(model) for model in (fp32, int8)]
    slow, fast = interleaved([lambda s=s: s.run(None, feed) for s in sessions], 1500, warm_up=200)  # type: ignore[misc]
    return slow / fast


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", choices=list(SUITES))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--teacher", action="store_true", help="quantize the teacher's own network")
    args = parser.parse_args()
    suite = SUITES[args.suite]
    teacher = suite.teacher(args.data.parent / "models")
    shape, preprocess = teacher.spec.input_shape, teacher.spec.preprocess
    test, train = (suite.data(args.data, split, shape) for split in ("test", "train"))
    outcome = distilled(suite, teacher, args.seconds, args.seed)
    generated = calibration_set(outcome, teacher.spec, seed=args.seed)
    if args.teacher and not isinstance(teacher, TorchTeacher):
        parser.error("--teacher wants a suite whose teacher is a PyTorch module")
    module = teacher.module if isinstance(teacher, TorchTeacher) and args.teacher else outcome.student
    student = student_to_onnx(module, shape)
    rows, raw = [], []
    for name in TARGETS:
        target = find_target(name)
        model = fix_batch(for_target(student, target), 1)

        def percent(graph: onnx.ModelProto) -> float:
            session = open_session(graph)
            return 100 * accuracy(test, preprocess, lambda x: run_batched(session, x, batch=1))

        start = time.perf_counter()
        own = quantize_model(model, target.scheme, generated)
        spent = time.perf_counter() - start
        real = quantize_model(model, target.scheme, real_calibration(generated, train.images, model))
        found = {"fp32": percent(model), "generated": percent(own.model), "real": percent(real.model)}
        coverage = integer_coverage(own.model, runtime=target.runtime, architecture=target.architecture).share
        gain = speed_up(model, own.model, generated.images()[:1]) if name == "x86" else None
        rows.append(
            [target.name, own.method, f"{found['fp32']:.2f}", f"{found['generated']:.2f}", f"{found['real']:.2f}",
             f"{found['fp32'] - found['generated']:+.2f}", f"{found['real'] - found['generated']:+.2f}",
             f"{100 * coverage:.1f} %", "" if gain is None else f"{gain:.2f}x"]
        )  # fmt: skip
        raw.append(
            {"target": name, **found, "method": own.method, "coverage": coverage, "gain": gain, "seconds": spent}
        )
    header = [
        "target",
        "calibration",
        "fp32",
        "int8, generated",
        "int8, real",
        "drop",
        "below real",
        "integers",
        "speed",
    ]
    print_rows(header, rows)
    suffix = "-teacher" if args.teacher else ""
    write_result(
        f"quantization-{args.suite}{suffix}", {"rows": raw, "distilled_seconds": args.seconds, "seed": args.seed}
    )


if __name__ == "__main__":
    main()
