"""How well a calibrated device's model predicts students it has not seen, on this host.

    python -m benchmarks.calibration

Calibrates this host as `edgedafl device calibrate local` does, then measures students (ONNX
Runtime, one thread, fp32 and int8, each model by itself) and compares.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import print_rows, write_result
from edgedafl.devices import find_device, run_bundle
from edgedafl.export import Artifacts, find_exporter, student_to_onnx
from edgedafl.graph.edit import fix_batch
from edgedafl.latency import read_measurement
from edgedafl.quantize import observe_activations, quantize_graph
from edgedafl.stages import calibrate_device
from edgedafl.stages.graphs import for_target
from edgedafl.students import build_student, module_layers
from edgedafl.targets import find_target

STUDENTS = {
    (1, 28, 28): ("convnet:0.5", "resnet8:0.5"),
    (1, 32, 32): ("lenet5", "lenet5-half", "convnet"),
    (3, 32, 32): ("resnet8", "resnet8:2", "resnet14", "resnet20", "resnet20:0.5", "resnet18:0.25", "mobilenetv2:0.5"),
    (3, 64, 64): ("convnet", "resnet8", "resnet18:0.25", "mobilenetv2:0.35"),
    (3, 96, 96): ("convnet:0.5", "resnet20", "mobilenetv2:0.5"),
}


def measured(seconds: float) -> list[tuple[str, str, object, float]]:
    """Student and shape, precision, layers and median seconds."""
    target, random, found = find_target("x86"), np.random.default_rng(0), []
    for shape, names in STUDENTS.items():
        images = random.normal(size=(8, *shape)).astype(np.float32)
        models, layers = {}, {}
        for name in names:
            module = build_student(name, shape, 10).module
            layers[name.replace(".", "_")] = (name, module_layers(module, shape))
            model = fix_batch(for_target(student_to_onnx(module, shape), target), 1)
            models[f"{name.replace('.', '_')}.fp32"] = model
            models[f"{name.replace('.', '_')}.int8"] = quantize_graph(
                model, target.scheme, observe_activations(model, images), "min-max"
            )
        files = {key.replace(":", "-"): model for key, model in models.items()}
        unit = {"scale": [1.0] * shape[0], "offset": [0.0] * shape[0]}
        with tempfile.TemporaryDirectory() as folder:
            artifacts = Artifacts(files, next(iter(files)), "students", unit, images[:1])
            bundle = find_exporter("onnx").export(artifacts, target, Path(folder) / "bundle")
            result = Path(folder) / "latency.json"
            run_bundle(find_device("local"), bundle.directory, ["--blocks", str(seconds)], result, timeout=600)
            figure = read_measurement(result, "local")
        for key, (name, rows) in layers.items():
            for precision in ("fp32", "int8"):
                nanoseconds = figure.steadiest[f"{key.replace(':', '-')}.{precision}"]
                found.append((f"{name} {'x'.join(map(str, shape))}", precision, rows, nanoseconds / 1e9))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Error of a calibrated latency model on unseen students.")
    parser.add_argument("--seconds", type=float, default=1.0, help="per student and precision")
    args = parser.parse_args()
    model = calibrate_device("local", on_message=print)
    rows, errors = [], []
    for name, precision, layers, seconds in measured(args.seconds):
        guess = model.predict(layers, precision).seconds
        errors.append(guess / seconds - 1)
        rows.append([name, precision, f"{1e6 * seconds:.1f}", f"{1e6 * guess:.1f}", f"{100 * errors[-1]:+.1f} %"])
    print_rows(["student", "precision", "measured µs", "estimate µs", "error"], rows)
    sizes = np.abs(errors)
    print(f"median error {100 * np.median(sizes):.1f} %, worst {100 * sizes.max():.1f} %; invalid: {model.invalid}")
    write_result(
        "calibration",
        {"rows": rows, "median": float(np.median(sizes)), "worst": float(sizes.max()), "model": model.to_dict()},
    )


if __name__ == "__main__":
    main()
