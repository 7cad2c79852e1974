"""int8 of uncut classifiers without data, beside ONNX Runtime's static quantization on other images.

    python -m benchmarks.integers --data DIR

Ours is what `edgedafl compress` does to a teacher that it does not cut. The rows beside it are what a user
gets from `onnxruntime.quantization.quantize_static` (QDQ, weights per channel, min-max ranges, 64 images):
uniform random pixels, the images that we draw, and real images, which are taken from the test images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

from benchmarks.classifiers import CLASSIFIERS
from benchmarks.common import print_rows, write_result
from benchmarks.fidelity import answers, test_images
from edgedafl.export import student_to_onnx
from edgedafl.graph.edit import fix_batch
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.quantize import integer_model
from edgedafl.stages import pruner_of, study_teacher
from edgedafl.stages.graphs import for_target
from edgedafl.targets import find_target
from edgedafl.tasks import agreement, predictions

_PHOTOGRAPHS = list(CLASSIFIERS)[:5]
_IMAGES = 64


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, images: np.ndarray) -> None:
        self._left: Iterator[dict[str, np.ndarray]] = ({name: image[None]} for image in images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def static(model: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """ONNX Runtime's own static quantization, prepared as its documentation says."""
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, output = (Path(folder) / f"{name}.onnx" for name in ("float", "prepared", "int8"))
        onnx.save(model, source)
        quant_pre_process(source, prepared)
        quantize_static(
            prepared,
            output,
            _Images(model.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(output)


def scores_of(model: onnx.ModelProto) -> Callable[[Tensor], Tensor]:
    session = open_session(model, threads=0)
    return lambda x: torch.from_numpy(run_batched(session, x.numpy(), batch=1))


def classifier_rows(name: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The teacher in float, ours, and the others."""
    torch.manual_seed(args.seed)
    classifier = CLASSIFIERS[name]
    teacher = classifier.teacher(args.data.parent / "models")
    images, data = test_images(classifier, teacher, args)
    task, target = teacher.spec.task, find_target("x86")
    wanted = predictions(answers(teacher.scores, images), task)

    def row(kind: str, found: np.ndarray, seconds: float) -> dict[str, Any]:
        right = agreement(found, data.labels.reshape(wanted.shape))
        return {
            "classifier": name, "kind": kind, "accuracy": right, "fidelity": agreement(found, wanted),
            "images": len(images), "seconds": seconds,
        }  # fmt: skip

    yield row("float", wanted, 0.0)
    started = time.monotonic()
    study = study_teacher(teacher)
    pruner = pruner_of(teacher, study)
    shape = teacher.spec.input_shape
    model = fix_batch(for_target(student_to_onnx(pruner.student("kept:1").module, shape), target), 1)
    looked = time.monotonic() - started
    random = torch.from_numpy(np.random.default_rng(args.seed).random((_IMAGES, *shape), np.float32))
    preprocess = teacher.spec.preprocess
    sources = {
        "ours": None,
        "static, random pixels": preprocess.from_pixels((random * 255).round().to(torch.uint8)),
        "static, our images": pruner.images[:_IMAGES],
        "static, real images": images[:_IMAGES],
    }
    for kind, source in sources.items():
        started = time.monotonic()
        if source is None:
            integer = integer_model(model, target.scheme, study.ranging_images.numpy(), pruner.images[:64].numpy())
        else:
            integer = static(model, source.numpy())
        seconds = time.monotonic() - started + (0 if source is not None else looked)
        yield row(kind, predictions(answers(scores_of(integer), images), task), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="datasets; third-party models in ../models beside it")
    parser.add_argument("--classifiers", nargs="+", default=_PHOTOGRAPHS, choices=CLASSIFIERS)
    parser.add_argument("--test", type=int, default=600, help="test images at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(2)
    found = []
    for name in args.classifiers:
        for row in classifier_rows(name, args):
            print(row, flush=True)
            found.append(row)
    print_rows(
        ["classifier", "int8", "accuracy, %", "fidelity, %", "images", "seconds"],
        [
            [r["classifier"], r["kind"], f"{100 * r['accuracy']:.2f}", f"{100 * r['fidelity']:.2f}",
             str(r["images"]), f"{r['seconds']:.0f}"]
            for r in found
        ],
    )  # fmt: skip
    if not args.no_write:
        write_result("integers", {"rows": found, "seed": args.seed})


if __name__ == "__main__":
    main()
