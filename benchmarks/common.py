"""Result files and tables shared by the benchmarks."""

from __future__ import annotations

import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
EXAMPLE = ROOT.parent / "examples" / "mnist"

__all__ = ["EXAMPLE", "ROOT", "machine", "print_rows", "write_result"]


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
