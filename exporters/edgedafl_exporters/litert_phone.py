"""What a phone without Python needs to check and time .tflite files: a shell script, raw inputs, expected scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgedafl_exporters.contents import tolerance_of

__all__ = ["phone_files"]

_CHECKED_IMAGES = 2
"""A phone runs them one process each, and every image is 600 kB of float32 at 224 pixels."""


def phone_files(pixels: np.ndarray, scores: Mapping[str, np.ndarray], ends: Mapping[str, Any]) -> dict[str, bytes]:
    """Inputs as the model's file takes them, expected scores one per line, and a table that a shell can read.

    Args:
        pixels: Example images of 0 to 255 (N,C,H,W).
        scores: Expected scores of these by precision.
        ends: By precision `input` and `output` of its file: name, dtype, shape, scale and zero point.

    Examples:
        >>> end = {"name": "t0", "dtype": "uint8", "shape": [1, 2, 2, 1], "scale": 1.0, "zero_point": 0}
        >>> pixels, ends = np.full((1, 1, 2, 2), 7.4), {"int8": {"input": end, "output": end}}
        >>> files = phone_files(pixels, {"int8": np.ones((1, 3))}, ends)
        >>> list(files["input_0.uint8.bin"]), files["variants.txt"].decode().split()[:4]
        ([7, 7, 7, 7], ['int8', 'model.int8.tflite', '0.05', 't0'])
    """
    files: dict[str, bytes] = {}
    lines = []
    for precision, expected in scores.items():
        given, made = ends[precision]["input"], ends[precision]["output"]
        kind = np.dtype(given["dtype"])
        for index, image in enumerate(pixels[:_CHECKED_IMAGES].transpose(0, 2, 3, 1)):
            value = image if kind.kind == "f" else np.clip(np.round(image), 0, 255)
            files[f"input_{index}.{kind.name}.bin"] = np.ascontiguousarray(value, kind.newbyteorder("<")).tobytes()
            text = "".join(f"{score:.7g}\n" for score in expected[index])
            files[f"expected_{index}.{precision}.txt"] = text.encode()
        shape = ",".join(str(side) for side in given["shape"])
        row = (precision, f"model.{precision}.tflite", tolerance_of(precision), given["name"], shape, kind.name)
        lines.append(" ".join(str(word) for word in (*row, made["dtype"], made["scale"], made["zero_point"])))
    files["variants.txt"] = ("\n".join(lines) + "\n").encode()
    return files
