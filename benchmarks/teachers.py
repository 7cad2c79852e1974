"""Teachers of every kind: imports, the executor's speed, a binary face attribute, odd shapes.

    python -m benchmarks.teachers imports speed shapes
    python -m benchmarks.teachers faces --data ../shared/data --seeds 0 1 2

`imports` exports eleven networks four ways, and again as float16 and in the quantized forms of
ONNX Runtime, and holds each import against ONNX Runtime. `faces` trains a small teacher of one
binary attribute (smiling or not) on labelled images and distills it without any.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.common import print_rows, write_result
from benchmarks.zoo import EXPORTS, NETS, build, export
from edgedafl.distill import AdversarialSynthesizer, Budget, Distiller, make_synthesizer
from edgedafl.evaluate import LabelledData, accuracy
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.half import to_half
from edgedafl.graph.parity import FP16_TOLERANCE, FP32_TOLERANCE, QUANTIZED_TOLERANCE, compare
from edgedafl.graph.runtime import open_session
from edgedafl.preprocess import Preprocess
from edgedafl.students import build_student
from edgedafl.teachers import TeacherOptions, load_onnx_teacher

__all__ = ["imported_forms"]


def imported_forms(name: str, folder: Path) -> list[dict[str, Any]]:
    """Parity of every exported form of a network with ONNX Runtime."""
    module, shape = build(name)
    rows = []
    for form in EXPORTS:
        path = export(module, shape, form, folder / f"{name}-{form}.onnx")
        rows.append({"net": name, "form": form, **_parity(path, shape, FP32_TOLERANCE)})
    source = folder / f"{name}-dynamo.onnx"
    half = folder / f"{name}-fp16.onnx"
    onnx.save(to_half(onnx.load(source)), half)
    rows.append({"net": name, "form": "float16", **_parity(half, shape, FP16_TOLERANCE)})
    for form, quantize in _QUANTIZERS.items():
        path = folder / f"{name}-{form}.onnx"
        quantize(source, path, shape)
        rows.append({"net": name, "form": form, **_parity(path, shape, QUANTIZED_TOLERANCE)})
    return rows


def _parity(path: Path, shape: tuple[int, int, int], tolerance: float) -> dict[str, Any]:
    """Import a file, compare four images with ONNX Runtime, and ask for a gradient."""
    x = np.random.default_rng(0).random((4, *shape), np.float32)
    session = open_session(path)
    feed = session.get_inputs()[0]
    kind = np.float16 if "float16" in feed.type else np.float32
    expected = np.asarray(session.run(None, {feed.name: x.astype(kind)})[0], np.float32)
    module = OnnxModule(onnx.load(path)).eval()
    image = torch.from_numpy(x).requires_grad_()
    found = module(image)
    found.square().sum().backward()
    assert image.grad is not None
    parity = compare(expected, found.detach().float().numpy())
    passed = parity.relative_error <= tolerance and bool(image.grad.abs().max() > 0)
    return {"relative_error": parity.relative_error, "same_class": parity.same_class, "passed": passed}


def _static(source: Path, path: Path, shape: tuple[int, int, int], form: str) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rng = np.random.default_rng(1)
            name = onnx.load(source, load_external_data=False).graph.input[0].name
            self.rows = iter([{name: rng.random((2, *shape), np.float32)} for _ in range(8)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)

    formats = {"QDQ": QuantFormat.QDQ, "QOperator": QuantFormat.QOperator}
    quantize_static(source, path, Reader(), quant_format=formats[form], per_channel=form == "QDQ")


def _dynamic(source: Path, path: Path, shape: tuple[int, int, int]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, path, weight_type=QuantType.QUInt8)


_QUANTIZERS: dict[str, Callable[[Path, Path, tuple[int, int, int]], None]] = {
    "QDQ": lambda a, b, s: _static(a, b, s, "QDQ"),
    "QOperator": lambda a, b, s: _static(a, b, s, "QOperator"),
    "dynamic": _dynamic,
}


def imports(args: argparse.Namespace) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in NETS:
            rows += imported_forms(name, Path(folder))
    table = []
    for form in dict.fromkeys(r["form"] for r in rows):
        mine = [r for r in rows if r["form"] == form]
        table.append(
            [
                form,
                f"{sum(r['passed'] for r in mine)} of {len(mine)}",
                f"{max(r['relative_error'] for r in mine):.1e}",
                f"{min(r['same_class'] for r in mine):.0%}",
            ]
        )
    print_rows(["form", "accepted", "largest relative error", "same class, worst net"], table)
    return {"rows": rows}


def _interleaved(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median ms of each call, taken in turn so that what else the machine does hits all alike."""
    samples: list[list[float]] = [[] for _ in calls]
    for round_ in range(rounds + 2):
        for call, mine in zip(calls, samples, strict=True):
            start = time.perf_counter()
            call()
            if round_ >= 2:  # two rounds to warm up
                mine.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(mine) for mine in samples]


def _forward_backward(module: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Callable[[], object]:
    def call() -> None:
        image = x.clone().requires_grad_()
        module(image).square().sum().backward()

    return call


def speed(args: argparse.Namespace) -> dict[str, Any]:
    """Executor, as teachers run it, against the source module: forward and input gradient."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("resnet20", "mobilenetv2", "lenet5", "vit"):
            module, shape = build(name)
            module.requires_grad_(False)
            path = export(module, shape, "dynamo", Path(folder) / f"{name}.onnx")
            teacher = load_onnx_teacher(path, TeacherOptions(input_range=(0.0, 1.0)))
            x = torch.rand(128, *shape)
            ours, source = _forward_backward(lambda i, t=teacher: t(i).logits, x), _forward_backward(module, x)
            mine, theirs = _interleaved([ours, source], rounds=12)
            rows.append({"net": name, "executor_ms": mine, "source_ms": theirs, "ratio": mine / theirs})
    print_rows(
        ["net, batch 128", "executor, ms", "source module, ms", "ratio"],
        [[r["net"], f"{r['executor_ms']:.0f}", f"{r['source_ms']:.0f}", f"{r['ratio']:.2f}"] for r in rows],
    )
    return {"rows": rows}


class FaceNet(nn.Module):
    """A small teacher of one attribute of 64x64 grey faces; one logit."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 8, 16, 32, 32)
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 16, 64), nn.ReLU())
        self.head = nn.Linear(64, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def read_faces(path: Path) -> LabelledData:
    """Grey images and 0 or 1 from a pack of mosaics."""
    from PIL import Image

    pack = np.load(path)
    blob, offsets = pack["blob"].tobytes(), pack["offsets"]
    columns, (height, width) = int(pack["cols"]), (int(t) for t in pack["tile"])
    pieces = []
    for start, end in pairwise(offsets):
        mosaic = np.asarray(Image.open(io.BytesIO(blob[start:end])).convert("L"))
        rows = mosaic.shape[0] // height
        pieces.append(mosaic.reshape(rows, height, columns, width).transpose(0, 2, 1, 3).reshape(-1, 1, height, width))
    labels = np.asarray(pack["labels"]).astype(np.int64).reshape(-1, 1)
    return LabelledData(np.concatenate(pieces)[: len(labels)].copy(), labels)


def train_faces(data: Path, path: Path) -> None:
    """Train the attribute's teacher and write it as ONNX: the only place that sees labels."""
    torch.manual_seed(0)
    train = read_faces(data / "smiles64_train.npz")
    net, preprocess = FaceNet(), Preprocess.from_mean_std((0.5,), (0.25,), 1)
    labels = torch.from_numpy(train.labels).float()
    weight = (1 - labels.mean()) / labels.mean()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    epochs, batch = 6, 128
    steps = epochs * (len(labels) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        order = torch.randperm(len(labels))
        for start in range(0, len(order) - batch + 1, batch):
            rows = order[start : start + batch]
            x = preprocess.from_pixels(torch.from_numpy(train.images[rows.numpy()]))
            x = x.flip(3) if torch.rand(()) < 0.5 else x
            loss = F.binary_cross_entropy_with_logits(net(x), labels[rows], pos_weight=weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    export(net.eval(), (1, 64, 64), "dynamo", path)


def faces(args: argparse.Namespace) -> dict[str, Any]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "smile.onnx"
        train_faces(args.data, path)
        test = read_faces(args.data / "smiles64_test.npz")
        for seed in args.seeds:
            teacher = load_onnx_teacher(path, TeacherOptions(mean=(0.5,), std=(0.25,)))
            torch.manual_seed(seed)
            student = build_student(args.student, teacher.spec.input_shape, 1)
            _, synthesizer = make_synthesizer("auto", teacher)
            budget = Budget(args.seconds, args.steps)
            outcome = Distiller(teacher, student, synthesizer, budget=budget).run()
            score = accuracy(
                test,
                teacher.spec.preprocess,
                lambda x, m=outcome.student: m(torch.from_numpy(x)).detach().numpy(),
                task=teacher.spec.task,
            )
            reference = accuracy(
                test,
                teacher.spec.preprocess,
                lambda x, t=teacher: t.scores(torch.from_numpy(x)).numpy(),
                task=teacher.spec.task,
            )
            rows.append(
                {
                    "seed": seed,
                    "accuracy": 100 * score,
                    "teacher_accuracy": 100 * reference,
                    "majority": 100 * max(test.labels.mean(), 1 - test.labels.mean()),
                    "steps": outcome.steps,
                    "families": synthesizer.priors.shares,
                }
            )
            print(rows[-1], flush=True)
    return {"student": args.student, "seconds": args.seconds, "rows": rows}


def shapes(args: argparse.Namespace) -> dict[str, Any]:
    """Unusual sizes and class counts, end to end through the engine."""
    rows = []
    for shape, classes in (((3, 48, 64), 2), ((1, 28, 28), 200), ((2, 33, 47), 7), ((3, 224, 224), 10)):
        torch.manual_seed(0)
        module = build_student("resnet8:0.25", shape, classes).module.eval()
        with tempfile.TemporaryDirectory() as folder:
            path = export(module, shape, "dynamo", Path(folder) / "net.onnx")
            teacher = load_onnx_teacher(path, TeacherOptions(input_range=(0.0, 1.0)))
        student = build_student("resnet8:0.25", shape, classes)
        synthesizer = AdversarialSynthesizer(teacher)
        outcome = Distiller(teacher, student, synthesizer, budget=Budget(steps=2)).run()
        with torch.no_grad():
            answer = outcome.student(torch.zeros(2, *shape))
        rows.append({"shape": list(shape), "classes": classes, "answer": list(answer.shape), "steps": outcome.steps})
    print_rows(
        ["input", "classes", "student answers"],
        [["x".join(map(str, r["shape"])), str(r["classes"]), str(r["answer"])] for r in rows],
    )
    return {"rows": rows}


PARTS = {"imports": imports, "speed": speed, "shapes": shapes, "faces": faces}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--data", type=Path, help="folder with smiles64_*.npz")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--steps", type=int, help="steps instead of seconds, for trials")
    parser.add_argument("--student", default="lenet5")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-write", action="store_true", help="do not write the result file")
    args = parser.parse_args()
    if args.steps:
        args.seconds = None
    torch.set_num_threads(args.threads)
    for part in args.parts:
        result = PARTS[part](args)
        if not args.no_write:
            write_result(f"teachers-{part}", result)


if __name__ == "__main__":
    main()
