"""Fit the latency estimator's shares of peak from published single-thread measurements.

    python -m benchmarks.fit_estimator --rows devices.json

`devices.json` holds devices, per-layer model lists and measured rows. For each core family and
precision the model of `edgedafl/latency/estimate.py` is fitted by non-negative least squares on
relative errors; what is printed goes into `edgedafl/latency/data/families.json`.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("conv3x3", "conv", "pointwise", "depthwise", "linear")
FAMILIES = {
    "A72": (r"A72|A73|A57", r"A7[2356] ([0-9.]+)|@ ?([0-9.]+)|([0-9.]+) ?GHz", 4),
    "A76+": (r"A76|A77|A78|X1|X2|X3|X4", r"([0-9.]+) ?GHz|@ ?([0-9.]+)", 8),
}


def kind_of(layer: list[Any]) -> str:
    """Our layer kind of one row of a model's layer list."""
    op, kernel, stride = layer[0], layer[1], layer[2]
    if op == "fc":
        return "linear"
    if op in ("dw", "gconv"):
        return "depthwise"
    if op == "pw":
        return "pointwise"
    return "conv3x3" if kernel == 3 and stride == 1 else "conv"


def design(model: dict[str, Any], rate: float, clock: float) -> np.ndarray:
    """Milliseconds at full peak per kind, and the layer count over the clock."""
    row = np.zeros(len(KINDS) + 1)
    for layer in model["layers"]:
        row[KINDS.index(kind_of(layer))] += layer[8] / rate * 1e3
        row[-1] += 1e-3 / clock
    return row


def nnls(a: np.ndarray, b: np.ndarray, ridge: float, prior: np.ndarray) -> np.ndarray:
    """Ridge to a prior, coefficients at or above a tenth of it; projected gradient descent."""
    gram = a.T @ a + ridge * np.diag(1 / prior**2)
    target = a.T @ b + ridge / prior
    x = prior.copy()
    step = 1 / np.linalg.norm(gram, 2)
    for _ in range(200_000):
        x = np.maximum(x - step * (gram @ x - target), prior / 10)
    return x


def fit(data: dict[str, Any], family: str, precision: str) -> dict[str, Any]:
    """Coefficients of one family: milliseconds multiply the design row."""
    cores, clock_pattern, lanes = FAMILIES[family]
    rows, times = [], []
    for m in data["measurements"]:
        if m["runtime"] != "ncnn" or m["backend"] != "cpu" or m["threads"] != 1:
            continue
        wanted = ("int8",) if precision == "int8" else ("fp32", "fp16")
        if m["precision"] not in wanted or m.get("arch") not in data["models"]:
            continue
        if not re.search(cores, m["device"]):
            continue
        found = re.search(clock_pattern, m["device"])
        clock = float(next((g for g in found.groups() if g), 2.0)) if found else 2.0
        boost = 2 if m["precision"] == "fp16" else 1
        rows.append(design(data["models"][m["arch"]], clock * 1e9 * lanes * boost, clock))
        times.append(m["latency_ms"])
    a = np.array(rows) / np.array(times)[:, None]
    prior = np.array([1.5, 2.0, 2.0, 5.0, 5.0, 20.0])
    x = nnls(a, np.ones(len(times)), 0.3, prior)
    error = np.abs(a @ x - 1)
    return {
        "rows": len(times),
        "share_of_peak": {k: round(1 / float(v), 3) for k, v in zip(KINDS, x, strict=False)},
        "layer_us_ghz": round(float(x[-1]), 2),
        "mean_error": round(float(error.mean()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, required=True)
    data = json.loads(parser.parse_args().rows.read_text())
    for family in FAMILIES:
        for precision in ("float", "int8"):
            print(family, precision, json.dumps(fit(data, family, precision)))


if __name__ == "__main__":
    main()
