"""EdgeDAFL: data-free compression of image classifiers for edge devices.

The names below are imported when they are first used: `import edgedafl` loads neither torch nor
ONNX Runtime.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

# Models are their owner's business. ONNX Runtime reads this when it is loaded; otherwise it leaves an identifier
# and a database in the user's home and sends what it notes. Its versions call the variable differently.
for _name in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):
    os.environ.setdefault(_name, "1")

__version__ = "0.2.0"

_EXPORTS = {
    "BenchOptions": "edgedafl.latency",
    "CompressConfig": "edgedafl.config",
    "Compressed": "edgedafl.api",
    "EdgeDaflError": "edgedafl.errors",
    "GateConfig": "edgedafl.config",
    "GateReport": "edgedafl.runs",
    "Inspection": "edgedafl.pipeline",
    "LabelledSource": "edgedafl.files.labelled",
    "ProfileResult": "edgedafl.runs",
    "RunDirectory": "edgedafl.runs",
    "RunRecord": "edgedafl.runs",
    "Target": "edgedafl.targets",
    "Teacher": "edgedafl.teachers",
    "TeacherOptions": "edgedafl.teachers",
    "TeacherSpec": "edgedafl.runs",
    "VerifyResult": "edgedafl.runs",
    "compress": "edgedafl.api",
    "find_target": "edgedafl.targets",
    "inspect": "edgedafl.pipeline",
    "list_targets": "edgedafl.targets",
    "load_teacher": "edgedafl.teachers",
    "profile": "edgedafl.pipeline",
    "verify": "edgedafl.pipeline",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'edgedafl' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
