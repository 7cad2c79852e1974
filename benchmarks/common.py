"""Result files and tables shared by the benchmarks."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgedafl.config import CompressConfig
from edgedafl.stages import build_ladder, builder, choose_student, study_teacher
from edgedafl.students import Student
from edgedafl.targets import find_target
from edgedafl.teachers import Teacher

ROOT = Path(__file__).resolve().parent
EXAMPLE = ROOT.parent / "examples" / "mnist"

__all__ = ["EXAMPLE", "ROOT", "interleaved", "machine", "print_rows", "student_for", "write_result"]


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import onnxruntime
    import torch

    names = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return {
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "load": os.getloadavg()[0],
    }


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write `benchmarks/results/<name>.json`."""
    path = ROOT / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    stamped = {"date": datetime.date.today().isoformat(), "machine": machine(), **result}
    path.write_text(json.dumps(stamped, indent=1) + "\n")
    return path


def interleaved(
    calls: list[Callable[[], object]], rounds: int, *, warm_up: int = 2, settle: Callable[[], object] = lambda: None
) -> list[float]:
    """Median seconds of each call, taken in turn so that what else the machine does hits all alike.

    `settle` waits for a device before each reading of the clock.
    """
    samples: list[list[float]] = [[] for _ in calls]
    for round_ in range(rounds + warm_up):
        for call, mine in zip(calls, samples, strict=True):
            settle()
            start = time.perf_counter()
            call()
            settle()
            if round_ >= warm_up:
                mine.append(time.perf_counter() - start)
    return [statistics.median(mine) for mine in samples]


def student_for(name: str, teacher: Teacher, method: str = "auto") -> Student:
    """A student by name, with `auto` and `pruned:WIDTH` as on the command line, for an int8 artifact."""
    config, target = CompressConfig(student=name, method=method), find_target(CompressConfig().target)
    study = study_teacher(teacher)
    build = builder(config, teacher, study, target)
    if name != "auto" or build.pruner is None:
        return choose_student(config, teacher, target, "int8", build)
    ladder = build_ladder(build, study, target, "int8", config)
    return build(ladder.candidates[ladder.chosen].name)


def print_rows(header: list[str], rows: list[list[str]]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
