"""How faithful what comes out is: the default command, the ladder, and predictions against the truth.

    python -m benchmarks.fidelity rows --data DIR                  # pairs that predictions rest on
    python -m benchmarks.fidelity prediction                       # leaving each teacher out in turn
    python -m benchmarks.fidelity defaults --data DIR              # `compress` with defaults, every classifier
    python -m benchmarks.fidelity refit --data DIR                 # no training, CIFAR-10 ResNet-20
    python -m benchmarks.fidelity ladder --data DIR --seconds 180  # ResNet-20 from 100 % to 25 %
    python -m benchmarks.fidelity latency --data DIR               # half of the multiply-accumulates
    python -m benchmarks.fidelity sizes --data DIR                 # limits below what eight bits take

Third-party models lie in `../models` beside the datasets. Labels are for the last look only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.classifiers import CLASSIFIERS, Classifier, foreign_photographs
from benchmarks.common import print_rows, write_result
from edgedafl.export import student_to_onnx
from edgedafl.fidelity import Predictor
from edgedafl.fidelity.prediction import Row, row_from_dict
from edgedafl.files.labelled_arrays import LabelledData
from edgedafl.files.pictures import Pictures
from edgedafl.graph.edit import fix_batch
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.graph.trainable import TrainableGraph
from edgedafl.latency import estimate_latency
from edgedafl.quantize import ROUNDING_IMAGES, integer_model, observe_activations, quantize_graph
from edgedafl.stages import Study, pruner_of, study_teacher
from edgedafl.stages.graphs import for_target
from edgedafl.stages.study import resized
from edgedafl.students import Pruner, module_layers
from edgedafl.targets import find_target
from edgedafl.tasks import agreement, predictions
from edgedafl.teachers import Teacher

_SHARES = (0.98, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
_SHARES_OF_SLOW = (0.95, 0.9, 0.8, 0.65, 0.5)
_SLOW = 50_000_000  # multiply-accumulates
_UNFITTED = (0.95, 0.85, 0.7)
_FEWER_BITS = (6.0, 5.0, 4.5, 4.0)
_TEST = 600
_CHUNK = 32
_COLUMNS = ["classifier", "student", "teacher, %", "artifact, %", "fidelity, %", "predicted, %"]
_COLUMNS += ["size / teacher", "MACs", "steps", "seconds", "exit"]


def answers(scores_of: Callable[[Tensor], Tensor], images: Tensor) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([scores_of(part).float() for part in images.split(_CHUNK)]).numpy()


def test_images(classifier: Classifier, teacher: Teacher, args: argparse.Namespace) -> tuple[Tensor, LabelledData]:
    data = classifier.test(args.data, args.data.parent / "models")
    some = np.random.default_rng(0).permutation(len(data.labels))[: args.test]
    chosen = LabelledData(data.images[some], data.labels[some])
    return teacher.spec.preprocess.from_pixels(torch.from_numpy(chosen.images)), chosen


def integer_scores(
    study: Study, pruner: Pruner, model: Any, *, plain: bool = False, bits: float = 8.0
) -> Callable[[Tensor], Tensor]:
    target = find_target("x86")
    fixed, images = fix_batch(for_target(model, target), 1), study.ranging_images.numpy()
    if plain:
        integer = quantize_graph(fixed, target.scheme, observe_activations(fixed, images), "min-max")
    else:
        integer = integer_model(fixed, target.scheme, images, pruner.images[:ROUNDING_IMAGES].numpy(), bits)
    session = open_session(integer, threads=0)
    return lambda x: torch.from_numpy(run_batched(session, x.numpy(), batch=1))


def students(study: Study, pruner: Pruner) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """Students of every size, as they are before any training, some of them in integers."""
    shape = (int(pruner.images.shape[1]), int(pruner.images.shape[2]), int(pruner.images.shape[3]))
    whole = student_to_onnx(pruner.student("kept:1").module, shape)
    yield "whole, int8", integer_scores(study, pruner, whole)
    yield "whole, int8 min-max", integer_scores(study, pruner, whole, plain=True)
    for bits in _FEWER_BITS:
        yield f"whole, {bits:.1f} bits", integer_scores(study, pruner, whole, bits=bits)
    last, slow = 0, pruner.path[0].macs > _SLOW
    for share in _SHARES_OF_SLOW if slow else _SHARES:
        student = pruner.student(f"kept:{share}")
        if student.spec.parameters == last:
            continue
        last = student.spec.parameters
        yield f"kept:{share}", student.module.eval()
        if share in (0.95, 0.8, 0.5) and not (slow and share == 0.5):
            yield f"kept:{share}, int8", integer_scores(study, pruner, student_to_onnx(student.module, shape))
        if share in _UNFITTED and not slow:
            yield f"kept:{share}, cut only", pruner.student(f"kept:{share}", fitted=False).module.eval()


def rows(args: argparse.Namespace) -> dict[str, Any]:
    """Signals and real fidelity of many students of every classifier."""
    path = Path(str(resources.files("edgedafl.fidelity").joinpath("data", "rows.json")))
    found = json.loads(path.read_text())["rows"] if path.exists() else []
    for name in args.classifiers:
        started = time.monotonic()
        torch.manual_seed(0)
        classifier = CLASSIFIERS[name]
        teacher = classifier.teacher(args.data.parent / "models")
        images, _ = test_images(classifier, teacher, args)
        study = study_teacher(teacher)
        pruner = pruner_of(teacher, study)
        task = teacher.spec.task
        wanted = predictions(answers(teacher.scores, images), task)
        mine, eight_bits = [], 0.0
        for student, scores_of in students(study, pruner):
            if not student.startswith(args.students):
                break  # those that are wanted come first
            fidelity = agreement(predictions(answers(scores_of, images), task), wanted)
            signals = study.signals(scores_of, whole=student.startswith("whole"))
            if student == "whole, int8":
                eight_bits = signals.mean_error
            elif student.endswith(" bits"):
                signals = replace(signals, eight_bits=eight_bits)
            mine.append({"teacher": name, "student": student, "fidelity": fidelity, "signals": signals.to_dict()})
            seen = " ".join(
                f"{k} {c.agreement:.3f} {c.weighted:.3f} {c.error:.4f}" for k, c in signals.comparisons.items()
            )
            print(f"{name} {student} {fidelity:.4f} {seen}", flush=True)
        again = {row["student"] for row in mine}
        found = [row for row in found if row["teacher"] != name or (args.students and row["student"] not in again)]
        found += mine
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
        if not args.no_write:
            text = json.dumps({"origin": "python -m benchmarks.fidelity rows", "rows": found}, indent=1)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text + "\n")
    return {"rows": len(found)}


def prediction(args: argparse.Namespace) -> dict[str, Any]:
    """Predictions of every teacher's students from all other teachers' rows."""
    text = resources.files("edgedafl.fidelity").joinpath("data", "rows.json").read_text("utf-8")
    all_rows = [row_from_dict(entry) for entry in json.loads(text)["rows"]]
    names = sorted({row.teacher for row in all_rows})
    found: list[tuple[Row, Any]] = []
    table = []
    for name in names:
        predictor = Predictor([row for row in all_rows if row.teacher != name])
        mine = [(row, predictor.predict(row.signals)) for row in all_rows if row.teacher == name]
        known = [(row, band) for row, band in mine if band is not None]
        found += known
        good = [abs(b.fidelity - r.fidelity) for r, b in known if r.fidelity >= 0.8]
        covered = [b.low <= r.fidelity <= b.high for r, b in known]
        table.append(
            [name, str(len(mine)), f"{100 * np.median(good):.1f}" if good else "", f"{100 * np.mean(covered):.0f} %"]
        )
    good = [abs(b.fidelity - r.fidelity) for r, b in found if r.fidelity >= 0.8]
    covered = [b.low <= r.fidelity <= b.high for r, b in found]
    table.append(["all", str(len(found)), f"{100 * np.median(good):.1f}", f"{100 * np.mean(covered):.0f} %"])
    print_rows(
        ["teacher left out", "students", "median error where the truth is >= 80 %, points", "bands cover"], table
    )
    return {"median_error": float(np.median(good)), "covered": float(np.mean(covered)), "rows": len(found)}


def compressed(name: str, flags: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """`edgedafl compress` as a user calls it, in a process of its own; accuracy and fidelity afterwards."""
    classifier = CLASSIFIERS[name]
    models = args.data.parent / "models"
    teacher = classifier.teacher(models)
    images, data = test_images(classifier, teacher, args)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        command = [sys.executable, "-m", "edgedafl", "compress", classifier.source(models), "-o", str(output)]
        command += [*declared(classifier, models), *flags]
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - started
        row: dict[str, Any] = {"classifier": name, "exit": done.returncode, "seconds": seconds, "flags": flags}
        print(done.stdout[-400:] if args.verbose else "", done.stderr[-600:], flush=True)
        manifest = json.loads((output / "run.json").read_text()) if (output / "run.json").exists() else {}
        artifact = next(iter(sorted((output / "bundles").glob("*/model.int8.onnx"))), None)
        if artifact is None:
            return row
        session = open_session(artifact, threads=0)
        sides = session.get_inputs()[0].shape[2:]
        small = resized(images, (int(sides[0]), int(sides[1])))
        mine = predictions(run_batched(session, small.numpy(), batch=1), teacher.spec.task)
        wanted = predictions(answers(teacher.scores, images), teacher.spec.task)
        verdict = manifest.get("verdict", {})
        size = artifact.stat().st_size
        row |= {
            "student": manifest["student"]["name"],
            "weight_bits": manifest["weight_bits"],
            "macs": manifest["student"]["macs"] / max(teacher.spec.macs, 1),
            "fidelity": agreement(mine, wanted),
            "accuracy": agreement(mine, data.labels.reshape(wanted.shape)),
            "teacher_accuracy": agreement(wanted, data.labels.reshape(wanted.shape)),
            "size": size,
            "share": size / teacher.spec.size,
            "predicted": verdict.get("band"),
            "sentence": verdict.get("sentence"),
            "steps": manifest["stages"]["distill"]["result"]["steps"],
        }
    print(row, flush=True)
    return row


def declared(classifier: Classifier, models: Path) -> list[str]:
    """What is declared about a teacher, as flags."""
    known, flags = classifier.declared(models), []
    for key, flag in (("mean", "--input-mean"), ("std", "--input-std"), ("input_range", "--input-range")):
        if key in known:
            values = ",".join(f"{v:.9g}" for v in known[key])  # type: ignore[attr-defined]
            flags.append(f"{flag}={values}")
    if "weights" in known:
        flags += ["--weights", str(known["weights"])]
    if "input_shape" in known:
        flags += ["--input-shape", ",".join(str(v) for v in known["input_shape"])]  # type: ignore[attr-defined]
    return flags


def show(rows_: list[dict[str, Any]]) -> None:
    def share(row: dict[str, Any], key: str) -> str:
        return f"{100 * row[key]:.2f}" if key in row else ""

    print_rows(
        _COLUMNS,
        [
            [
                row["classifier"],
                row.get("student", "") + (f", {row['weight_bits']:.1f} bits" if row.get("weight_bits", 8) < 8 else ""),
                share(row, "teacher_accuracy"),
                share(row, "accuracy"),
                share(row, "fidelity"),
                f"{100 * row['predicted']['fidelity']:.1f}" if row.get("predicted") else "",
                share(row, "share"),
                share(row, "macs"),
                str(row.get("steps", "")),
                f"{row['seconds']:.0f}",
                str(row["exit"]),
            ]
            for row in rows_
        ],
    )  # fmt: skip


def defaults(args: argparse.Namespace) -> dict[str, Any]:
    """The command with its defaults, once per classifier."""
    found = [compressed(name, args.flags, args) for name in args.classifiers]
    show(found)
    return {"runs": found}


def refit(args: argparse.Namespace) -> dict[str, Any]:
    """Accuracy of the CIFAR-10 ResNet-20 after cut and refit, without any training."""
    models = args.data.parent / "models"
    table, found = [], []
    for folded in (False, True):
        for pictures in (False, True):
            classifier = CLASSIFIERS["cifar10-resnet20"]
            teacher = classifier.teacher(models)
            images, data = test_images(classifier, teacher, args)
            if folded:  # as a file that keeps no BatchNorm
                teacher.promised_moments = lambda network: {}  # type: ignore[method-assign,assignment]
            own = pictures_of(models, (3, 32, 32)) if pictures else None
            torch.manual_seed(args.seed)
            study = study_teacher(teacher, own)
            pruner = pruner_of(teacher, study)
            for share in (0.45, 0.56):
                started = time.monotonic()
                cut = pruner.student(f"kept:{share}", fitted=False)
                fitted = pruner.student(f"kept:{share}")
                seconds = time.monotonic() - started
                right = [
                    100 * agreement(predictions(answers(s.module.eval(), images), teacher.spec.task), data.labels)
                    for s in (cut, fitted)
                ]
                found.append(
                    {"share": share, "folded": folded, "pictures": pictures, "cut": right[0], "refitted": right[1]}
                )
                print(found[-1], flush=True)
                table.append(
                    [
                        f"{share:.0%}",
                        "folded" if folded else "kept",
                        "500" if pictures else "none",
                        f"{right[0]:.2f}",
                        f"{right[1]:.2f}",
                        f"{seconds:.0f}",
                    ]
                )
    print_rows(["weights", "BatchNorm", "foreign photographs", "cut, %", "refitted, %", "seconds"], table)
    return {"rows": found}


def pictures_of(models: Path, shape: tuple[int, int, int]) -> Pictures:
    """The 500 foreign photographs as `--images` reads them."""
    from edgedafl.files.pictures import read_pictures

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photographs.npz"
        np.savez(path, images=foreign_photographs(models))
        return read_pictures(path, shape)


def ladder(args: argparse.Namespace) -> dict[str, Any]:
    """The ResNet-20 from all of its weights to a quarter, trained for a while each."""
    found = [
        compressed("cifar10-resnet20", ["--student", f"kept:{share}", "--min-fidelity", "0", *args.flags], args)
        for share in (1.0, 0.9, 0.8, 0.7, 0.56, 0.45, 0.35, 0.25)
    ]
    show(found)
    return {"runs": found}


def latency(args: argparse.Namespace) -> dict[str, Any]:
    """A limit of half the teacher's estimated time on classifiers of photographs, which halves the arithmetic."""
    target, found = find_target("x86"), []
    for name in args.classifiers:
        teacher = CLASSIFIERS[name].teacher(args.data.parent / "models")
        module = TrainableGraph(teacher.network())
        _, height, width = teacher.spec.input_shape
        half = (3, round(height * 5 / 7), round(width * 5 / 7))  # 160 of 224: 51 %
        seconds = estimate_latency(module_layers(module, half), target, "int8").median / 1e9
        found.append(
            compressed(name, [f"--max-latency={1.02e3 * seconds:.6f}ms", "--min-fidelity=0", *args.flags], args)
        )
    show(found)
    return {"runs": found}


def sizes(args: argparse.Namespace) -> dict[str, Any]:
    """Limits below what eight bits take: a fifth and a seventh of the teacher's file."""
    found = []
    for name in args.classifiers:
        size = CLASSIFIERS[name].teacher(args.data.parent / "models").spec.size
        for share in (0.2, 1 / 7):
            found.append(compressed(name, [f"--max-size={int(share * size)}", "--min-fidelity=0", *args.flags], args))
    show(found)
    return {"runs": found}


PARTS = {
    "rows": rows,
    "prediction": prediction,
    "defaults": defaults,
    "refit": refit,
    "ladder": ladder,
    "latency": latency,
    "sizes": sizes,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", type=Path, help="datasets; third-party models in ../models beside it")
    parser.add_argument("--classifiers", nargs="+", default=list(CLASSIFIERS)[:12], choices=CLASSIFIERS)
    parser.add_argument("--test", type=int, default=_TEST, help="test images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="more flags of `compress`")
    parser.add_argument("--students", default="", help="rows of those alone whose names begin so, e.g. whole")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--no-write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = PARTS[args.part](args)
    if not args.no_write and args.part != "rows":
        write_result(f"fidelity-{args.part}", result)


if __name__ == "__main__":
    main()
