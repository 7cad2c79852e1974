"""The same uncut classifiers by ONNX Runtime and by OpenVINO: what integers keep, and how fast they are here.

    python -m benchmarks.openvino --data DIR --test 400

Needs `edgedafl[openvino]`. Real test images are for the last look only.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.classifiers import CLASSIFIERS
from benchmarks.common import print_rows, write_result
from benchmarks.fidelity import answers, test_images
from edgedafl import RunDirectory
from edgedafl.api import quantize
from edgedafl.export import find_exporter
from edgedafl.tasks import agreement, predictions

_TARGETS = {"onnxruntime": ("x86-64-vnni", "onnx"), "openvino": ("x86-64-openvino", "openvino")}
_PHOTOGRAPHS = list(CLASSIFIERS)[:5]


def judged(name: str, runtime: str, args: argparse.Namespace) -> dict[str, Any]:
    """One classifier by one runtime."""
    target, exporter = _TARGETS[runtime]
    chosen, models = CLASSIFIERS[name], args.data.parent / "models"
    teacher = chosen.teacher(models)
    images, data = test_images(chosen, teacher, args)
    wanted = predictions(answers(teacher.scores, images), teacher.spec.task)
    known = chosen.declared(models)
    settings = {f"input_{key}" if key in ("mean", "std") else key: value for key, value in known.items()}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        made = quantize(chosen.source(models), target=target, device="local", output=output, **settings)
        record = RunDirectory(output).record()
        assert record.profiled is not None and record.profiled.measured is not None
        measured = record.profiled.measured
        mine = predictions(find_exporter(exporter).predict(made.artifact, images.numpy()), teacher.spec.task)
        return {
            "network": name,
            "runtime": runtime,
            "version": measured.environment.runtime,
            "fidelity": agreement(mine, wanted),
            "accuracy": agreement(mine, data.labels.reshape(wanted.shape)),
            "built": find_exporter(exporter).try_build(made.artifact),
            "median_ns": {precision: summary.median for precision, summary in measured.summaries.items()},
            "memory_bytes": dict(measured.memory_bytes),
        }


def show(rows: list[dict[str, Any]]) -> None:
    print_rows(
        ["network", "runtime", "fidelity, %", "accuracy, %", "fp32, ms", "int8, ms", "fp32, MB", "int8, MB"],
        [
            [
                row["network"],
                row["runtime"],
                f"{100 * row['fidelity']:.2f}",
                f"{100 * row['accuracy']:.2f}",
                *(f"{row['median_ns'][precision] / 1e6:.2f}" for precision in ("fp32", "int8")),
                *(f"{row['memory_bytes'].get(precision, 0) / 1e6:.1f}" for precision in ("fp32", "int8")),
            ]
            for row in rows
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--classifiers", nargs="+", default=_PHOTOGRAPHS, choices=CLASSIFIERS)
    parser.add_argument("--test", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-write", action="store_true")
    args = parser.parse_args()
    rows = [judged(name, runtime, args) for name in args.classifiers for runtime in _TARGETS]
    show(rows)
    if not args.no_write:
        write_result("openvino", {"rows": rows})


if __name__ == "__main__":
    main()
