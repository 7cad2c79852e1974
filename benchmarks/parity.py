"""ONNX import: every third-party classifier at hand against ONNX Runtime.

    python -m benchmarks.parity --models MODELS

Besides the folder given, the classifiers that the onnx package ships are read.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.common import EXAMPLE, print_rows, write_result
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.load import load_onnx
from edgedafl.graph.runtime import open_session


def check(path: Path) -> dict[str, Any]:
    module = OnnxModule(load_onnx(path).model).eval()
    session = open_session(path)
    feed = session.get_inputs()[0]
    shape = [side if isinstance(side, int) else 2 for side in feed.shape]
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    expected = np.asarray(session.run([module.output_names[0]], {feed.name: x})[0])
    image = torch.from_numpy(x).requires_grad_()
    found = module(image)
    found.sum().backward()
    assert image.grad is not None
    error = float(np.abs(expected - found.detach().numpy()).max() / np.abs(expected).max())
    finite = bool(torch.isfinite(image.grad).all())
    return {"model": path.stem, "relative_error": error, "gradient_is_finite": finite}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    args = parser.parse_args()
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    paths = [EXAMPLE / "teacher.onnx", *sorted(args.models.rglob("*.onnx")), *sorted(light.glob("*.onnx"))]
    rows = [check(path) for path in paths]
    print_rows(
        ["model", "relative error", "gradient finite"],
        [[r["model"], f"{r['relative_error']:.1e}", str(r["gradient_is_finite"])] for r in rows],
    )
    write_result("parity", {"rows": rows})


if __name__ == "__main__":
    main()
