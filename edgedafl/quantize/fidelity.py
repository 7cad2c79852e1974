"""How near a model stays to the teacher and to its own float form, on probes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.quantize.calibration import CalibrationSet
from edgedafl.tasks import agreement, predictions

__all__ = ["Fidelity", "ModelComparer", "answers_on_probes", "within_drop"]


@dataclass(frozen=True)
class Fidelity:
    """Of one model.

    Attributes:
        agreement: Share of equal predictions with the teacher, in [0, 1].
        distance: Mean absolute difference of its scores from the float model's.
    """

    agreement: float
    distance: float

    @property
    def rank(self) -> tuple[float, float]:
        """Larger is better."""
        return self.agreement, -self.distance


class ModelComparer:
    """Compares models with a float one on the probes of a calibration set.

    Args:
        reference: The float model at batch 1.
        calibration: Whose probes.

    Attributes:
        reference: The float model's agreement with the teacher, in [0, 1].
        seconds_per_image: That it took.
    """

    def __init__(self, reference: onnx.ModelProto, calibration: CalibrationSet) -> None:
        self._calibration = calibration
        started = time.monotonic()
        self._scores = answers_on_probes(reference, calibration, threads=0)
        self.seconds_per_image = (time.monotonic() - started) / max(len(calibration.probe_pixels), 1)
        self.reference = self._agreement(self._scores)

    def of(self, model: onnx.ModelProto) -> Fidelity:
        """Of a model at batch 1."""
        scores = answers_on_probes(model, self._calibration, threads=0)
        return Fidelity(self._agreement(scores), float(np.abs(scores - self._scores).mean()))

    def _agreement(self, scores: np.ndarray) -> float:
        return agreement(predictions(scores, self._calibration.task), self._calibration.probe_classes)


def answers_on_probes(model: onnx.ModelProto, calibration: CalibrationSet, *, threads: int = 1) -> np.ndarray:
    """Scores (N,K) of a model at batch 1 on the probes of a calibration set.

    Args:
        model: The model.
        calibration: Whose probes.
        threads: Of the session; 0 takes every core.

    Examples:
        >>> from edgedafl.preprocess import Preprocess
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1,1,1,2] x) => (float[1,2] y) { y = Flatten(x) }'
        >>> pixels = np.array([[[[0, 255]]]], np.uint8)
        >>> own = CalibrationSet(pixels, pixels, np.ones(1, np.int64), Preprocess.from_range(0.0, 1.0, channels=1))
        >>> answers_on_probes(onnx.parser.parse_model(text), own).tolist()
        [[0.0, 1.0]]
    """
    session = open_session(model, threads=threads)
    return calibration.probe_scores(lambda images: run_batched(session, images, batch=1))


def within_drop(agreements: Mapping[str, float], precision: str, max_drop: float | None) -> bool:
    """Whether a precision loses no more agreement against fp32 than allowed; unknown ones do not.

    Examples:
        >>> within_drop({"fp32": 0.99, "int8": 0.97}, "int8", 0.005)
        False
    """
    if max_drop is None or precision not in agreements or "fp32" not in agreements:
        return True
    # A thousandth of a point is rounding.
    return agreements["fp32"] - agreements[precision] <= max_drop + 1e-5
