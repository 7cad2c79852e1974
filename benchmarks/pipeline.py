"""Everything but accuracy of distillation: sizes, int8 drop, speed, stage times, start-up.

    python -m benchmarks.pipeline --data DIR

Compresses the MNIST example once, quantizes it for all targets, and evaluates every artifact on
the full MNIST test set (10,000 images), which chooses nothing.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common import EXAMPLE, print_rows, write_result
from benchmarks.data import DATASETS
from edgedafl import pipeline
from edgedafl.config import CompressConfig
from edgedafl.evaluate import accuracy
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.runs import RunDirectory
from edgedafl.stages.quantize import load_models
from edgedafl.targets import find_target

TARGETS = ("jetson", "phone", "raspberry-pi", "x86")


def startup() -> dict[str, float]:
    """Median wall seconds of five runs, beside an empty interpreter."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import edgedafl": [sys.executable, "-c", "import edgedafl"],
        "edgedafl --help": [str(Path(sys.executable).with_name("edgedafl")), "--help"],
    }
    found = {}
    for name, command in commands.items():
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times.append(time.perf_counter() - start)
        found[name] = statistics.median(times)
    return found


def compressed(folder: Path, seconds: float, seed: int) -> tuple[RunDirectory, dict[str, float]]:
    """One run of the main job, with the time of every stage."""
    config = CompressConfig(
        target="jetson",
        output=folder / "run",
        time_budget=seconds,
        input_mean=(0.1307,),
        input_std=(0.3081,),
        eval=EXAMPLE / "sample.npz",
        seed=seed,
    )
    marks: list[tuple[str, float]] = [("teacher", time.perf_counter())]
    plan = pipeline.prepare(str(EXAMPLE / "teacher.onnx"), config)
    done = pipeline.compress(plan, on_message=lambda name: marks.append((name, time.perf_counter())))
    ends = [mark for _, mark in marks[1:]] + [time.perf_counter()]
    return done.run, {name: end - start for (name, start), end in zip(marks, ends, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    teacher_size = (EXAMPLE / "teacher.onnx").stat().st_size
    test = DATASETS["mnist"](args.data, "test", (1, 32, 32))
    result: dict[str, Any] = {"startup_seconds": startup()}
    with tempfile.TemporaryDirectory() as folder:
        run, stages = compressed(Path(folder), args.seconds, args.seed)
        result["stage_seconds"] = stages
        result["outside_distillation_seconds"] = sum(s for n, s in stages.items() if n != "distill")
        # The distillation stage also writes the student, its calibration images and the picture.
        record = run.record()
        assert record.distilled and record.profiled and record.profiled.measured
        result["outside_distillation_seconds"] += stages["distill"] - record.distilled.seconds
        result["int8_speed_up_x86"] = record.profiled.measured.speed_up["int8"]
        result["measured"] = asdict(record.profiled.measured)
        rows = []
        for name in TARGETS:
            target = find_target(name)
            quantized = pipeline.quantize(run, target=target, precision="int8")
            exported = pipeline.export(run, target=target, precision="int8")
            models = load_models(run, target)
            preprocess = record.teacher.preprocess
            scores = {}
            for precision, model in models.items():
                session = open_session(model)
                scores[precision] = 100 * accuracy(test, preprocess, lambda x, s=session: run_batched(s, x, batch=1))  # type: ignore[misc]
            rows.append(
                {
                    "target": target.name,
                    "calibration": quantized.method,
                    "accuracy": scores,
                    "drop": scores["fp32"] - scores["int8"],
                    "fp32_size": exported.float_size,
                    "int8_size": exported.sizes["int8"],
                }
            )
        result["targets"] = rows
        result["teacher_size"] = teacher_size
    table = [
        [r["target"], r["calibration"], f"{r['accuracy']['fp32']:.2f}", f"{r['accuracy']['int8']:.2f}",
         f"{r['drop']:+.2f}",
         f"{r['fp32_size'] / teacher_size:.3f}", f"{r['int8_size'] / teacher_size:.3f}"]
        for r in rows
    ]  # fmt: skip
    print_rows(
        ["target", "calibration", "fp32, %", "int8, %", "drop", "fp32 size / teacher", "int8 size / teacher"], table
    )
    print(f"int8 against fp32 on this host, interleaved: {result['int8_speed_up_x86']:.2f}x")
    print("seconds per stage:", {name: round(value, 1) for name, value in stages.items()})
    print(f"outside distillation: {result['outside_distillation_seconds']:.1f} s")
    print("start-up, seconds:", {name: round(value, 3) for name, value in result["startup_seconds"].items()})
    write_result("pipeline", result)


if __name__ == "__main__":
    main()
