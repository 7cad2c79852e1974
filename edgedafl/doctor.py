"""What is installed on this machine and what that means."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version

from edgedafl.devices import Finding
from edgedafl.export import list_exporters

__all__ = ["Finding", "examine"]

_REQUIRED = ("torch", "onnx", "onnxruntime", "onnxscript", "onnxsim", "numpy", "pydantic", "matplotlib")
_LEAST_FREE = 500_000_000


def examine() -> list[Finding]:
    """Look at Python, packages, plug-ins, accelerator, disk and load.

    Examples:
        >>> all(finding.name for finding in examine())
        True
    """
    found = [Finding("python", True, platform.python_version())]
    found += [_package(name) for name in _REQUIRED]
    found.append(_exporters())
    found.append(_tensorrt())
    found.append(_httpx())
    found.append(_accelerator())
    free = shutil.disk_usage(tempfile.gettempdir()).free
    found.append(
        Finding(
            "disk", free > _LEAST_FREE, f"{free / 1e9:.1f} GB free", "" if free > _LEAST_FREE else "Free some space."
        )
    )
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    quiet = load < cores / 2
    remedy = "" if quiet else "Latency measured now would not be valid."
    found.append(Finding("load", quiet or None, f"{load:.1f} on {cores} cores", remedy))
    return found


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, version(name))
    except PackageNotFoundError:
        return Finding(name, False, "missing", f"python -m pip install {name}")


def _exporters() -> Finding:
    names = list_exporters()
    remedy = "" if names else "Install the project with pip, so that its entry points are known."
    return Finding("exporters", bool(names), ", ".join(names) or "none", remedy)


def _tensorrt() -> Finding:
    for module in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        if importlib.util.find_spec(module):
            return Finding("TensorRT", True, module)
    remedy = "Only needed to build engines here; bundles build theirs on the device."
    return Finding("TensorRT", None, "not installed", remedy)


def _httpx() -> Finding:
    if importlib.util.find_spec("httpx"):
        return Finding("httpx", True, version("httpx"))
    return Finding(
        "httpx", None, "not installed", "Only needed for teachers on a server: pip install 'edgedafl[http]'."
    )


def _accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("accelerator", True, torch.cuda.get_device_name(0))
    return Finding("accelerator", None, "none", "Distillation runs on the CPU.")
