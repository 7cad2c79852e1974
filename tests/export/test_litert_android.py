"""LiteRT files for Android: pixels in, uint8 at both ends, and what Android's tools read in the file."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgedafl.export import Artifacts, Bundle, find_exporter
from edgedafl.graph.parity import compare
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.preprocess import Preprocess
from edgedafl.targets import find_target
from tests.export.test_litert import SHAPE, graphs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("litert_torch") is None,
        reason="LiteRT is not installed: pip install 'edgedafl[litert]'",
    ),
]
LABELS = tuple(f"thing {place}" for place in range(10))
PIXELS = np.random.default_rng(1).integers(0, 256, (24, *SHAPE), dtype=np.uint8)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGES = (
    (PIXELS / 255 - np.array(MEAN).reshape(3, 1, 1)) / np.array(STD).reshape(3, 1, 1)
).astype(np.float32)  # fmt: skip


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    """What ONNX Runtime answers."""
    return run_batched(open_session(graphs()[0]), IMAGES, batch=1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    fixed, integer, _ = graphs()
    artifacts = Artifacts(
        {"fp32": fixed, "int8": integer}, "int8", "resnet8", Preprocess.from_mean_std(MEAN, STD, 3).to_dict(),
        IMAGES[:4], calibration=IMAGES, provenance={"teacher_sha256": ""}, labels=LABELS,
    )  # fmt: skip
    place = tmp_path_factory.mktemp("android") / "bundle"
    return find_exporter("litert").export(artifacts, find_target("android-litert"), place)


def test_the_first_layer_maps_pixels_and_integers_reach_to_the_ends(bundle: Bundle, wanted: np.ndarray) -> None:
    exporter, facts = find_exporter("litert"), bundle.manifest["litert"]
    scores = {p: exporter.predict(bundle.directory / f"model.{p}.tflite", IMAGES) for p in ("fp32", "int8")}
    assert compare(wanted, scores["fp32"]).relative_error < 1e-4
    assert compare(wanted, scores["int8"]).same_class >= 0.9
    given = {"name": "t0_unsigned", "dtype": "uint8", "shape": [1, 32, 32, 3], "scale": 1.0, "zero_point": 0}
    assert facts["int8"]["input"] == given
    assert facts["int8"]["output"]["dtype"] == "uint8"
    assert facts["fp32"]["input"]["dtype"] == facts["fp32"]["output"]["dtype"] == "float32"
    assert facts["int8"]["integer_layers"] == facts["int8"]["layers"] == 11
    assert bundle.manifest["pixels"] is True


def test_pixels_of_a_camera_are_what_the_interpreter_takes(bundle: Bundle, wanted: np.ndarray) -> None:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(bundle.directory / "model.int8.tflite"))
    runner.allocate_tensors()
    (given,), (made,) = runner.get_input_details(), runner.get_output_details()
    same = 0
    for image, scores in zip(PIXELS.transpose(0, 2, 3, 1), wanted, strict=True):
        runner.set_tensor(given["index"], np.ascontiguousarray(image[None]))
        runner.invoke()
        same += int(runner.get_tensor(made["index"]).argmax() == scores.argmax())
    assert same >= 0.9 * len(PIXELS)


def test_bench_feeds_pixels(bundle: Bundle, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, bundle.directory / "bench", "--quick"], capture_output=True, text=True, check=False,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    checks = json.loads((tmp_path / "latency.json").read_text())["checks"]
    assert set(checks) == {"fp32", "int8"} and all(check["passed"] for check in checks.values())


def test_class_names_are_in_the_file_and_beside_it(bundle: Bundle) -> None:
    lines = "".join(f"{label}\n" for label in LABELS).encode()
    assert bundle.manifest["labels"] == "labels.txt"
    assert (bundle.directory / "labels.txt").read_bytes() == lines
    for precision in ("fp32", "int8"):
        with zipfile.ZipFile(bundle.directory / f"model.{precision}.tflite") as archive:
            assert archive.namelist() == ["labels.txt"] and archive.read("labels.txt") == lines


@pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="MediaPipe is not installed")
@pytest.mark.parametrize(("precision", "least"), [("fp32", 24), ("int8", 22)])
def test_mediapipe_names_the_class(bundle: Bundle, wanted: np.ndarray, precision: str, least: int) -> None:
    """In a process of its own: its libraries are not for sharing."""
    np.savez(bundle.directory.parent / "pixels.npz", pixels=PIXELS.transpose(0, 2, 3, 1))
    program = (
        "import sys, numpy as np, mediapipe as mp\n"
        "from mediapipe.tasks.python import BaseOptions, vision\n"
        "base = BaseOptions(model_asset_path=sys.argv[1])\n"
        "options = vision.ImageClassifierOptions(base_options=base, max_results=1)\n"
        "with vision.ImageClassifier.create_from_options(options) as classifier:\n"
        "    for pixels in np.load(sys.argv[2])['pixels']:\n"
        "        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(pixels))\n"
        "        print(classifier.classify(image).classifications[0].categories[0].category_name)\n"
    )
    model, pixels = bundle.directory / f"model.{precision}.tflite", bundle.directory.parent / "pixels.npz"
    done = subprocess.run([sys.executable, "-c", program, model, pixels], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    names = [LABELS[place] for place in wanted.argmax(1)]
    assert sum(a == b for a, b in zip(done.stdout.split("\n")[:-1], names, strict=True)) >= least
