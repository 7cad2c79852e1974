"""Teachers of every kind: imports, the executor's speed, odd shapes.

    python -m benchmarks.teachers imports speed shapes

`imports` exports eleven networks four ways, and again as float16 and in the quantized forms of
ONNX Runtime, and holds each import against ONNX Runtime.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.common import interleaved, print_rows, write_result
from benchmarks.zoo import EXPORTS, NETS, build, export
from edgedafl.distill import AdversarialSynthesizer, Budget, Distiller
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.half import to_half
from edgedafl.graph.parity import FP16_TOLERANCE, FP32_TOLERANCE, QUANTIZED_TOLERANCE, compare
from edgedafl.graph.runtime import open_session
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
            mine, theirs = (1e3 * seconds for seconds in interleaved([ours, source], rounds=12))
            rows.append({"net": name, "executor_ms": mine, "source_ms": theirs, "ratio": mine / theirs})
    print_rows(
        ["net, batch 128", "executor, ms", "source module, ms", "ratio"],
        [[r["net"], f"{r['executor_ms']:.0f}", f"{r['source_ms']:.0f}", f"{r['ratio']:.2f}"] for r in rows],
    )
    return {"rows": rows}


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


PARTS = {"imports": imports, "speed": speed, "shapes": shapes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-write", action="store_true", help="do not write the result file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for part in args.parts:
        result = PARTS[part](args)
        if not args.no_write:
            write_result(f"teachers-{part}", result)


if __name__ == "__main__":
    main()
