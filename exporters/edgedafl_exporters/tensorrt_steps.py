"""What runs in a process of its own because TensorRT can end a process without a word.

    python -m edgedafl_exporters.tensorrt_steps build MODEL

Builds the model with whatever TensorRT is importable and prints one JSON object: the package, the
plan's size, the network's layers by type, and where PyTorch sees a GPU the latency on it. With
TensorRT-RTX a plan is built without any GPU, for a compute capability of the Orin's generation.
Figures of devices are not made here: `bench` does that with trtexec.
"""

from __future__ import annotations

import ctypes.util
import importlib
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["PACKAGES", "build"]

PACKAGES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""Import names, the full TensorRT first."""

_WARNINGS_KEPT = 5
_WARM_UP_SECONDS, _SECONDS, _SAMPLES = 0.5, 1.0, 200
_TYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT8": "int8", "INT32": "int32"}


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
    config, timed = builder.create_builder_config(), _runs_here(trt)
    if hasattr(config, "set_compute_capability"):
        config.num_compute_capabilities = 1
        capability = trt.ComputeCapability.CURRENT if timed else trt.ComputeCapability.SM86
        config.set_compute_capability(capability, 0)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        sys.exit(f"TensorRT does not build {file.name}: {' | '.join(log.lines[-_WARNINGS_KEPT:])}")
    kinds = Counter(str(network.get_layer(i).type).rsplit(".", 1)[-1] for i in range(network.num_layers))
    return {
        "package": f"{trt.__name__} {trt.__version__}",
        "plan_bytes": plan.nbytes,
        "layers": dict(sorted(kinds.items())),
        **(_timed(trt.Runtime(log).deserialize_cuda_engine(plan)) if timed else {}),
    }


def _runs_here(trt: Any) -> bool:
    """Whether there is a GPU that this TensorRT builds for; without a driver torch is not even imported."""
    if ctypes.util.find_library("cuda") is None:
        return False
    import torch

    if not torch.cuda.is_available():
        return False
    major, minor = torch.cuda.get_device_capability()
    return not hasattr(trt, "ComputeCapability") or hasattr(trt.ComputeCapability, f"SM{major}{minor}")


def _timed(engine: Any) -> dict[str, Any]:
    """Median latency at batch 1, host to host, copies included, as trtexec means it."""
    import torch

    if engine is None:
        sys.exit("TensorRT does not load the plan that it has just built")
    context, stream = engine.create_execution_context(), torch.cuda.Stream()
    pairs: dict[bool, list[tuple[torch.Tensor, torch.Tensor]]] = {True: [], False: []}
    for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors)):
        kind = getattr(torch, _TYPES[str(engine.get_tensor_dtype(name)).rsplit(".", 1)[-1]])
        host = torch.zeros(tuple(engine.get_tensor_shape(name)), dtype=kind).pin_memory()
        device = host.cuda()
        context.set_tensor_address(name, device.data_ptr())
        pairs["INPUT" in str(engine.get_tensor_mode(name))].append((host, device))

    def run() -> None:
        with torch.cuda.stream(stream):
            for host, device in pairs[True]:
                device.copy_(host, non_blocking=True)
            if not context.execute_async_v3(stream.cuda_stream):
                sys.exit("TensorRT does not run the plan that it has just built")
            for host, device in pairs[False]:
                host.copy_(device, non_blocking=True)
        stream.synchronize()

    samples = _samples(run, _WARM_UP_SECONDS, _SECONDS, _SAMPLES)
    return {
        "gpu": torch.cuda.get_device_name(),
        "latency_ms": statistics.median(samples) / 1e6,
        "samples": len(samples),
    }


def _samples(run: Callable[[], None], warm_up: float, seconds: float, count: int) -> list[int]:
    """Nanoseconds per call, of at least so many calls and so long, after a warm-up."""
    samples: list[int] = []
    start = time.perf_counter()
    while time.perf_counter() - start < warm_up:
        run()
    start = time.perf_counter()
    while len(samples) < count or time.perf_counter() - start < seconds:
        before = time.perf_counter_ns()
        run()
        samples.append(time.perf_counter_ns() - before)
    return samples


def _package() -> Any:
    for name in PACKAGES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    sys.exit(f"none of {', '.join(PACKAGES)} can be imported")


if __name__ == "__main__":
    print(json.dumps(build(Path(sys.argv[2]))))
