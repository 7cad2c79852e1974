"""LiteRT files of uncut classifiers: whether they convert, and what integers keep.

    python -m benchmarks.litert --data DIR --classifiers trash-mobilenetv2 plant38-mobilenetv3
    python -m benchmarks.litert --students                 # every architecture, random weights

Needs `edgedafl[litert]`. Real test images are for the last look only.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.classifiers import CLASSIFIERS
from benchmarks.common import print_rows, write_result
from benchmarks.fidelity import answers, test_images
from edgedafl.export import Artifacts, find_exporter, student_to_onnx
from edgedafl.graph.edit import fix_batch, model_bytes
from edgedafl.graph.parity import compare
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.preprocess import Preprocess
from edgedafl.quantize import ROUNDING_IMAGES, integer_model
from edgedafl.stages import pruner_of, study_teacher
from edgedafl.stages.confident import confident_images
from edgedafl.stages.graphs import for_target
from edgedafl.students.registry import ARCHITECTURES, build_student
from edgedafl.targets import find_target
from edgedafl.tasks import agreement, predictions

_TARGET = "android-litert"
_COLUMNS = [
    "network",
    "float error",
    "same class, generated, %",
    "same class, sure, %",
    "onnx int8, %",
    "litert int8, %",
    "accuracy, %",
]
_COLUMNS += ["integer layers", "int8 / onnx int8", "live kB", "seconds"]


def exported(models: dict[str, Any], calibration: np.ndarray, preprocess: Preprocess, folder: Path) -> Any:
    """The bundle of a float and an int8 graph."""
    artifacts = Artifacts(
        models, "int8", "uncut", preprocess.to_dict(), calibration[:4], calibration=calibration,
        provenance={"teacher_sha256": ""},
    )  # fmt: skip
    return find_exporter("litert").export(artifacts, find_target(_TARGET), folder / "bundle")


def classifier(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One third-party classifier, as it is."""
    torch.manual_seed(0)
    chosen = CLASSIFIERS[name]
    teacher = chosen.teacher(args.data.parent / "models")
    images, data = test_images(chosen, teacher, args)
    wanted = predictions(answers(teacher.scores, images), teacher.spec.task)
    study, target = study_teacher(teacher), find_target(_TARGET)
    pruner = pruner_of(teacher, study)
    whole = student_to_onnx(pruner.student("kept:1").module, teacher.spec.input_shape)
    fixed = fix_batch(for_target(whole, target), 1)
    ranging = study.ranging_images.numpy()
    integer = integer_model(fixed, target.scheme, ranging, pruner.images[:ROUNDING_IMAGES].numpy())
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bundle = exported({"fp32": fixed, "int8": integer}, ranging, teacher.spec.preprocess, Path(folder))
        seconds = time.monotonic() - started
        exporter, generated = find_exporter("litert"), study.fitting_images(args.generated).numpy()
        files = {v["precision"]: bundle.directory / v["file"] for v in bundle.manifest["variants"]}
        floats = run_batched(open_session(fixed, threads=0), generated, batch=1)
        sure = confident_images(teacher, torch.from_numpy(generated)).numpy()
        on_sure = run_batched(open_session(fixed, threads=0), sure, batch=1)
        mine = predictions(exporter.predict(files["int8"], images.numpy()), teacher.spec.task)
        ours = predictions(run_batched(open_session(integer, threads=0), images.numpy(), batch=1), teacher.spec.task)
        facts = bundle.manifest["litert"]["int8"]
        return {
            "network": name,
            "float_error": compare(floats[:64], exporter.predict(files["fp32"], generated[:64])).relative_error,
            "generated": compare(floats, exporter.predict(files["int8"], generated)).same_class,
            "sure": compare(on_sure, exporter.predict(files["int8"], sure)).same_class,
            "sure_images": len(sure),
            "onnx": agreement(ours, wanted),
            "fidelity": agreement(mine, wanted),
            "accuracy": agreement(mine, data.labels.reshape(wanted.shape)),
            "integer": f"{facts['integer_layers']} of {facts['layers']}",
            "size": files["int8"].stat().st_size / len(model_bytes(integer)),
            "live": facts["live_bytes"],
            "seconds": seconds,
        }


def student(name: str) -> dict[str, Any]:
    """An architecture of the registry with random weights: it converts, and floats are the same."""
    torch.manual_seed(0)
    shape = (1, 32, 32) if name.startswith("lenet") else (3, 32, 32)
    target = find_target(_TARGET)
    fixed = fix_batch(for_target(student_to_onnx(build_student(name, shape, 10).module.eval(), shape), target), 1)
    images = np.random.default_rng(0).random((32, *shape), dtype=np.float32)
    integer = integer_model(fixed, target.scheme, images, images)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bundle = exported({"fp32": fixed, "int8": integer}, images, Preprocess.from_range(0, 1, shape[0]), Path(folder))
        seconds, exporter = time.monotonic() - started, find_exporter("litert")
        files = {v["precision"]: bundle.directory / v["file"] for v in bundle.manifest["variants"]}
        floats = run_batched(open_session(fixed), images, batch=1)
        facts = bundle.manifest["litert"]["int8"]
        return {
            "network": name,
            "float_error": compare(floats, exporter.predict(files["fp32"], images)).relative_error,
            "generated": compare(floats, exporter.predict(files["int8"], images)).same_class,
            "integer": f"{facts['integer_layers']} of {facts['layers']}",
            "size": files["int8"].stat().st_size / len(model_bytes(integer)),
            "live": facts["live_bytes"],
            "seconds": seconds,
        }


def show(rows: list[dict[str, Any]]) -> None:
    def percent(row: dict[str, Any], key: str) -> str:
        return f"{100 * row[key]:.2f}" if key in row else ""

    print_rows(
        _COLUMNS,
        [
            [
                row["network"],
                f"{row['float_error']:.1e}",
                percent(row, "generated"),
                percent(row, "sure"),
                percent(row, "onnx"),
                percent(row, "fidelity"),
                percent(row, "accuracy"),
                row["integer"],
                f"{row['size']:.2f}",
                f"{row['live'] / 1e3:.0f}",
                f"{row['seconds']:.0f}",
            ]
            for row in rows
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--classifiers", nargs="+", default=list(CLASSIFIERS)[:6], choices=CLASSIFIERS)
    parser.add_argument("--students", action="store_true", help="architectures with random weights instead")
    parser.add_argument("--test", type=int, default=400)
    parser.add_argument("--generated", type=int, default=2000)
    parser.add_argument("--no-write", action="store_true")
    args = parser.parse_args()
    rows = []
    for name in ARCHITECTURES if args.students else args.classifiers:
        rows.append(student(name) if args.students else classifier(name, args))
        print(rows[-1], flush=True)
    show(rows)
    if not args.no_write:
        write_result("litert-students" if args.students else "litert", {"rows": rows})


if __name__ == "__main__":
    main()
