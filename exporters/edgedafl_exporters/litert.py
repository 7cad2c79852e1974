"""LiteRT (TensorFlow Lite): the .tflite files that Android apps and microcontrollers load.

Google's converter and quantizer make them; the weights are those that our rounding has left, and the ranges
come from our generated images.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgedafl.errors import UnsupportedModelError
from edgedafl.export import Artifacts, Bundle
from edgedafl.graph.edit import fix_batch, model_bytes
from edgedafl.graph.parity import compare
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.targets import Target
from edgedafl_exporters.c_array import c_array_files
from edgedafl_exporters.child import ChildExporter, Made, StepError
from edgedafl_exporters.contents import programs, template
from edgedafl_exporters.litert_metadata import ClassifierMetadata
from edgedafl_exporters.litert_phone import phone_files
from edgedafl_exporters.litert_pixels import to_pixels

__all__ = ["LiteRtExporter"]

_LOG = logging.getLogger(__name__)
_RANGE = ">=2.0"
_PRECISIONS = ("fp32", "int8")
_FLOAT_ERROR = 1e-3
"""Relative error of the float file against ONNX Runtime; 1e-6 is usual."""
_IMAGES = 64
"""Calibration images: ranges are settled by then, and each takes an interpreter of its own."""


class LiteRtExporter(ChildExporter):
    """A bundle of .tflite files, channels last, the int8 one with integers at both ends.

    Where the target takes pixels, the first layer maps them, and the ends of the int8 file are uint8.
    """

    name = "litert"
    title = "LiteRT"
    steps = "litert_steps"
    extra = "litert"
    packages = ("ai_edge_litert",)
    builders = ("litert_torch", "ai_edge_quantizer")

    def export(self, artifacts: Artifacts, target: Target, directory: Path) -> Bundle:
        """Write the bundle.

        Raises:
            EnvironmentMissingError: If the converter is not installed.
            UnsupportedModelError: If it cannot take the network; its reason is in the message.
        """
        # A C program has no use for what Android's tools read.
        about = None if target.is_microcontroller else _metadata(artifacts, pixels=target.input == "pixels")
        made, omitted = self._build(artifacts, about)
        source = made.get(artifacts.primary, made["fp32"])
        return self.ship(
            artifacts,
            target,
            directory,
            made,
            suffix="tflite",
            card={"Conversion": f"LiteRT, ranges from {min(_IMAGES, len(artifacts.calibration))} generated images"},
            changes={
                "runtime_range": _RANGE,
                "omitted": omitted,
                "pixels": target.input == "pixels",
                "litert": {precision: model.facts for precision, model in made.items()},
            },
            files=_files_beside(artifacts, target, made, source),
        )

    def executables(self) -> dict[str, bytes]:
        """What runs on the device: in Python, or by LiteRT's own program where there is none."""
        return {**programs(), "bench.sh": template("bench_litert.sh").encode()}

    def _build(self, artifacts: Artifacts, about: ClassifierMetadata | None) -> tuple[dict[str, Made], dict[str, str]]:
        """Models by precision, and why a precision is not among them."""
        made: dict[str, Made] = {}
        omitted: dict[str, str] = {}
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            np.save(place / "calibration.npy", artifacts.calibration[:_IMAGES])
            if about is not None:
                (place / "metadata.json").write_text(json.dumps(about.to_dict()), "utf-8")
            for precision in _PRECISIONS:
                if precision not in artifacts.models:
                    continue
                (place / f"{precision}.onnx").write_bytes(model_bytes(fix_batch(artifacts.models[precision], 1)))
                try:
                    made[precision] = self._one(place, precision, artifacts)
                except UnsupportedModelError as error:
                    if precision == "fp32":
                        raise
                    _LOG.warning("%s is left out of the bundle. %s", precision, error.message)
                    omitted[precision] = error.message
        return made, omitted

    def _one(self, place: Path, precision: str, artifacts: Artifacts) -> Made:
        file, facts = place / f"model.{precision}.tflite", place / "facts.json"
        try:
            self.step("build", str(place), precision)
            self.step("operators", str(file), str(facts))
        except StepError as error:
            raise UnsupportedModelError(
                f"LiteRT cannot take the {precision} model: {error}",
                "Use `--exporter onnx`, or `--exporter executorch`.",
            ) from error
        scores = self.predict(file, artifacts.inputs)
        if precision == "fp32":
            reference = run_batched(open_session(artifacts.models["fp32"]), artifacts.inputs, batch=1)
            apart = compare(reference, scores).relative_error
            if apart > _FLOAT_ERROR:
                raise UnsupportedModelError(
                    f"LiteRT's float model differs from ONNX Runtime by {apart:.2g}.", "Use `--exporter onnx`."
                )
        return Made(file.read_bytes(), scores, json.loads(facts.read_text()))


def _files_beside(artifacts: Artifacts, target: Target, made: Mapping[str, Made], source: Made) -> dict[str, bytes]:
    """Source for microcontrollers; for phones what is needed to run the models without Python."""
    if target.is_microcontroller:
        return c_array_files(source.blob, _operators(source))
    if target.input != "pixels":
        return {}
    known = artifacts.preprocess
    pixels = to_pixels(artifacts.inputs, known["scale"], known["offset"])
    return phone_files(pixels, {p: m.scores for p, m in made.items()}, {p: m.facts for p, m in made.items()})


def _metadata(artifacts: Artifacts, *, pixels: bool) -> ClassifierMetadata:
    channels, height, width = artifacts.inputs.shape[1:]
    known = artifacts.preprocess
    scale, offset = tuple(known["scale"]), tuple(known["offset"])
    return ClassifierMetadata(artifacts.name, (channels, height, width), scale, offset, artifacts.labels, pixels=pixels)


def _operators(model: Made) -> list[str]:
    names = model.facts["operators"]
    return [str(name) for name in names] if isinstance(names, list) else []
