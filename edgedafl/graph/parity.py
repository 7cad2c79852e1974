"""Numeric agreement of two implementations of one network."""

from __future__ import annotations

import numpy as np

from edgedafl.errors import CheckFailedError
from edgedafl.runs import Parity

__all__ = ["compare", "require_parity"]

FP32_TOLERANCE = 1e-4
FP16_TOLERANCE = 2e-3
# Two correct integer runtimes differ by up to one output quantum, 0.5-2.3 % of the largest score; by 3.1 % where the
# float scores of a MobileNet come out of fifty layers of integers.
QUANTIZED_TOLERANCE = 8e-2


def compare(reference: np.ndarray, other: np.ndarray, *, least: float = 1e-30) -> Parity:
    """Compare scores of shape (N, K).

    Args:
        reference: Scores.
        other: Scores.
        least: The magnitude that the reference is taken to have at least. Probabilities may all be next to
            nothing, where two correct runtimes differ by a tenth.

    Examples:
        >>> found = compare(np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([[1.0, 2.1], [0.0, 3.0]]))
        >>> found.same_class
        0.5
    """
    reference = np.asarray(reference, np.float64).reshape(len(reference), -1)
    other = np.asarray(other, np.float64).reshape(len(other), -1)
    if reference.shape != other.shape:
        return Parity(float("inf"), 0.0, len(reference))
    scale = max(float(np.abs(reference).max()), least)
    error = float(np.abs(reference - other).max()) / scale
    one = reference.shape[1] == 1
    first, second = ((s > 0) if one else s.argmax(1) for s in (reference, other))
    same = float((first == second).mean())
    return Parity(error if np.isfinite(error) else float("inf"), same, len(reference))


def require_parity(parity: Parity, tolerance: float, what: str) -> None:
    """Raise where the error is above the tolerance.

    Raises:
        CheckFailedError: With the measured error and the limit.

    Examples:
        >>> import numpy as np
        >>> require_parity(compare(np.array([[1.0, 2.0]]), np.array([[1.0, 2.0]])), 1e-4, "The student")
    """
    if not parity.relative_error <= tolerance:
        raise CheckFailedError(
            f"{what}: relative error {parity.relative_error:.2g} exceeds {tolerance:.0e} "
            f"({parity.same_class:.1%} of {parity.rows} rows keep their class).",
            "Export the model with another exporter or opset, and report the case.",
        )
