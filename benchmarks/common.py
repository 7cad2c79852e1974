"""Data readers and result files shared by the benchmarks."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import platform
import struct
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent
EXAMPLE = ROOT.parent / "examples" / "mnist"

__all__ = ["EXAMPLE", "ROOT", "machine", "print_rows", "read_idx", "resized", "write_result"]


def read_idx(path: Path) -> np.ndarray:
    """One of the gzip-compressed idx files of MNIST and its kin, as uint8."""
    blob = gzip.decompress(path.read_bytes())
    rank = blob[3]
    shape = struct.unpack(f">{rank}I", blob[4 : 4 + 4 * rank])
    return np.frombuffer(blob, np.uint8, offset=4 + 4 * rank).reshape(shape)


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """(N,28,28) uint8 to (N,1,side,side), bilinear, as the example teacher was trained."""
    import torch

    x = torch.from_numpy(images.copy()).unsqueeze(1).float()
    if side != images.shape[-1]:
        x = torch.nn.functional.interpolate(x, size=side, mode="bilinear", align_corners=False)
    return x.round().to(torch.uint8).numpy()


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import onnxruntime
    import torch

    names = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return {
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "load": os.getloadavg()[0],
    }


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write `benchmarks/results/<name>.json`."""
    path = ROOT / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    stamped = {"date": datetime.date.today().isoformat(), "machine": machine(), **result}
    path.write_text(json.dumps(stamped, indent=1) + "\n")
    return path


def print_rows(header: list[str], rows: list[list[str]]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
