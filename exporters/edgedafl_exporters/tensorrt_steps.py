"""What runs in a process of its own because TensorRT can end a process without a word.

    python -m edgedafl_exporters.tensorrt_steps build MODEL

Builds the model with whatever TensorRT is importable and prints one JSON object: the package, the
plan's size, the network's layers by type. With TensorRT-RTX a plan is built without any GPU, for a
compute capability of the Orin's generation. Nothing is timed here: `bench` does that with trtexec.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

__all__ = ["PACKAGES", "build"]

PACKAGES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""Import names, the full TensorRT first."""

_WARNINGS_KEPT = 5


def build(file: Path) -> dict[str, Any]:
    """Parse and build; raises SystemExit with the reason where that fails."""
    trt = _package()

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps what the builder says: it returns None on failure and raises nothing."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.WARNING:
                self.lines.append(message)

    log = Log()
    builder = trt.Builder(log)
    flags = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flags is None else 1 << int(flags))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(file.read_bytes()):
        reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        sys.exit(f"TensorRT does not take {file.name}: {reasons}")
    config = builder.create_builder_config()
    if hasattr(config, "set_compute_capability"):
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        sys.exit(f"TensorRT does not build {file.name}: {' | '.join(log.lines[-_WARNINGS_KEPT:])}")
    kinds = Counter(str(network.get_layer(i).type).rsplit(".", 1)[-1] for i in range(network.num_layers))
    return {
        "package": f"{trt.__name__} {trt.__version__}",
        "plan_bytes": plan.nbytes,
        "layers": dict(sorted(kinds.items())),
    }


def _package() -> Any:
    for name in PACKAGES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    sys.exit(f"none of {', '.join(PACKAGES)} can be imported")


if __name__ == "__main__":
    print(json.dumps(build(Path(sys.argv[2]))))
