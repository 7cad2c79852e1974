"""ExecuTorch with XNNPACK: what Android and iOS apps link as a library.

ExecuTorch quantizes by its own rules, so its int8 model is made from the float student and the
generated calibration images, not from the ONNX one.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np

from edgedafl.errors import EnvironmentMissingError
from edgedafl.export import Artifacts, Bundle
from edgedafl.graph.edit import model_bytes
from edgedafl.targets import Target
from edgedafl_exporters.child import ChildExporter, Made, StepError

__all__ = ["ExecuTorchExporter"]

_LOG = logging.getLogger(__name__)
_RANGE = ">=1.0"
_PRECISIONS = ("fp32", "int8")


class ExecuTorchExporter(ChildExporter):
    """A bundle of .pte files; `bench` runs them with ExecuTorch's Python runtime."""

    name = "executorch"
    title = "ExecuTorch"
    steps = "executorch_steps"
    extra = "executorch"
    packages = ("executorch",)

    def export(self, artifacts: Artifacts, target: Target, directory: Path) -> Bundle:
        """Write the bundle.

        Where XNNPACK cannot take the int8 form of some layer, the bundle holds fp32 alone and its
        manifest says why.
        """
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            (place / "float.onnx").write_bytes(model_bytes(artifacts.models["fp32"]))
            np.save(place / "calibration.npy", artifacts.calibration)
            made, omitted = self._build(place, artifacts)
        return self.ship(
            artifacts,
            target,
            directory,
            made,
            suffix="pte",
            card={"Quantization": f"XNNPACK's quantizer on {len(artifacts.calibration)} generated images"},
            changes={"runtime_range": _RANGE, "omitted": omitted},
        )

    def _build(self, place: Path, artifacts: Artifacts) -> tuple[dict[str, Made], dict[str, str]]:
        """Models by precision, and why a precision is not among them."""
        made: dict[str, Made] = {}
        omitted: dict[str, str] = {}
        for precision in _PRECISIONS:
            if precision != "fp32" and precision not in artifacts.models:
                continue
            file = place / f"model.{precision}.pte"
            try:
                self.step("build", str(place), precision)
                made[precision] = Made(file.read_bytes(), self.predict(file, artifacts.inputs))
            except StepError as error:
                reason = f"ExecuTorch failed to build: {error}"
                if precision == "fp32":
                    raise EnvironmentMissingError(
                        reason, "Use `--exporter onnx`, or another version of executorch (1.5 is known to work)."
                    ) from error
                _LOG.warning("%s is left out of the bundle. %s", precision, reason)
                omitted[precision] = reason
        return made, omitted
