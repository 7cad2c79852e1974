"""Working memory as it is estimated from the graph, beside what ONNX Runtime takes.

    python -m benchmarks.memory --models DIR

DIR holds third-party classifiers; students of the registry are measured beside them. What one image takes is the growth
of a process over a second run: the first one maps the kernels' code. Without the runtime's arena, memory returned to
the system before, blocks of 16 kB and more mapped on their own, one thread; median of five processes. The image is the
caller's and added to it.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch

from benchmarks.common import print_rows, write_result
from edgedafl.export import student_to_onnx
from edgedafl.graph.edit import fix_batch
from edgedafl.graph.image_input import find_image_input
from edgedafl.graph.load import load_onnx
from edgedafl.graph.peak_memory import peak_memory
from edgedafl.quantize import observe_activations, quantize_graph
from edgedafl.stages.graphs import for_target
from edgedafl.students import build_student
from edgedafl.targets import find_target

_STUDENTS = {
    "mobilenetv2": (3, 160, 160),
    "convnet": (3, 224, 224),
    "resnet18": (3, 224, 224),
    "resnet20": (3, 224, 224),
    "lenet5": (1, 224, 224),
}
_PROCESSES = 5
_MAPPED = {"MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_TRIM_THRESHOLD_": "0"}


def networks(models: Path) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Name and float32 graph of batch 1."""
    target = find_target("x86-64-vnni")
    for path in sorted(models.rglob("*.onnx")):
        yield path.parent.name, fix_batch(for_target(load_onnx(path).model, target), 1)
    for name, shape in _STUDENTS.items():
        torch.manual_seed(0)
        model = student_to_onnx(build_student(name, shape, 10).module.eval(), shape)
        yield f"{name} of the registry, {shape[1]} px", fix_batch(for_target(model, target), 1)


def integers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same in int8; where its ranges end does not matter here."""
    shape = find_image_input(model).image_shape
    images = np.random.default_rng(0).random((2, *shape)).astype(np.float32)
    return quantize_graph(model, find_target("x86-64-vnni").scheme, observe_activations(model, images), "min-max")


def growth(model: onnx.ModelProto, *, processes: int = _PROCESSES) -> int:
    """Bytes that a process of its own grows by while it runs one image; Linux counts pages by the quarter megabyte."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        command = [sys.executable, "-m", "benchmarks.memory", "--measure", str(path)]
        environment = {**os.environ, **_MAPPED}
        runs = [
            subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            for _ in range(processes)
        ]
    return int(statistics.median(int(run.stdout) for run in runs))


def measure(path: Path) -> int:
    """Growth of this process over a second run."""
    options = ort.SessionOptions()
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    feeds = {given.name: np.random.default_rng(0).random(given.shape).astype(np.float32)}
    session.run(None, feeds)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the most that was in memory counts from here
    before = _status("VmRSS")
    session.run(None, feeds)
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


def row(name: str, precision: str, model: onnx.ModelProto) -> dict[str, Any]:
    image = 4 * math.prod(find_image_input(model).dimensions(1))
    estimate, taken = peak_memory(model), growth(model) + image
    return {"network": name, "precision": precision, "estimated": estimate.peak, "measured": taken}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(measure(args.measure))
        return
    rows = []
    for name, model in networks(args.models):
        rows += [row(name, "float32", model), row(name, "int8", integers(model))]
    print_rows(
        ["network", "precision", "estimated, MB", "measured, MB", "off by, %"],
        [
            [
                r["network"],
                r["precision"],
                f"{r['estimated'] / 1e6:.2f}",
                f"{r['measured'] / 1e6:.2f}",
                f"{100 * (r['estimated'] / r['measured'] - 1):+.0f}",
            ]
            for r in rows
        ],
    )
    write_result("memory", {"rows": rows})


if __name__ == "__main__":
    main()
