"""OpenVINO: Intel's runtime for its CPUs; it reads .onnx files and fuses their Q/DQ pairs itself."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgedafl.errors import EnvironmentMissingError, UnsupportedModelError, reason_of
from edgedafl.export import Artifacts
from edgedafl.graph.edit import model_bytes
from edgedafl_exporters.onnx import OnnxExporter

__all__ = ["OpenVinoExporter"]

# Weights and their products; the rest moves data or is fused into them.
_LAYERS = ("Convolution", "GroupConvolution", "FullyConnected", "MatMul")
_INTEGERS = ("i8", "u8")


class OpenVinoExporter(OnnxExporter):
    """A bundle of .onnx files that OpenVINO has compiled and run here, with `bench` in Python.

    OpenVINO's own form (an .xml and a .bin) is not shipped: its text is as long as the weights of a small network.
    """

    name = runtime = "openvino"

    def stored(self, artifacts: Artifacts) -> dict[str, onnx.ModelProto]:
        """As they are: of OpenVINO it is not known whether packed weights end in integer layers."""
        return artifacts.models

    def expected(self, artifacts: Artifacts) -> dict[str, np.ndarray]:
        """OpenVINO's own scores: it rounds between integer layers in another way than ONNX Runtime does.

        Raises:
            EnvironmentMissingError: If OpenVINO is not installed.
            UnsupportedModelError: If it cannot take a model; its reason is in the message.
        """
        scores = {}
        with tempfile.TemporaryDirectory() as folder:
            for precision, model in artifacts.models.items():
                file = Path(folder, f"model.{precision}.onnx")
                file.write_bytes(model_bytes(model))
                scores[precision] = self.predict(file, artifacts.inputs)
        return scores

    def predict(self, file: Path, images: np.ndarray) -> np.ndarray:
        """Scores of a shipped file."""
        model = _compiled(file)
        return np.concatenate([model(image[None])[0] for image in images])

    def try_build(self, file: Path) -> dict[str, Any]:
        """How many layers OpenVINO runs, and how many of them in integers."""
        found = Counter(
            info["runtimePrecision"].value in _INTEGERS
            for operator in _compiled(file).get_runtime_model().get_ops()
            if (info := operator.get_rt_info())["layerType"].value in _LAYERS
        )
        return {"layers": found.total(), "integer_layers": found[True]}


def _compiled(file: Path) -> Any:
    try:
        import openvino
    except ImportError as error:
        raise EnvironmentMissingError(
            "OpenVINO is not installed.", "Install it: pip install 'edgedafl[openvino]'."
        ) from error
    try:
        # In one thread and in float32 where floats are: as the answers that it is compared with.
        return openvino.Core().compile_model(
            str(file), "CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        )
    except RuntimeError as error:
        raise UnsupportedModelError(
            f"OpenVINO cannot take {file.name}: {reason_of(error)}", "Use `--exporter onnx`."
        ) from error
