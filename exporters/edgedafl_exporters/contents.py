"""What all bundles share: model bytes, example inputs and outputs, manifest entries, README."""

from __future__ import annotations

import io
import string
from importlib import resources
from typing import Any

import numpy as np

from edgedafl import __version__
from edgedafl.export import Artifacts
from edgedafl.graph.edit import model_bytes
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.targets import Target

__all__ = [
    "base_entries",
    "expected_io",
    "expected_outputs",
    "model_files",
    "readme",
    "template",
]

# A float32 graph may differ by rounding; an integer one by two steps of its last quantizer.
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2}


def expected_outputs(artifacts: Artifacts) -> dict[str, np.ndarray]:
    """What ONNX Runtime answers on the build machine, by precision."""
    return {
        precision: run_batched(open_session(model), artifacts.inputs, batch=1)
        for precision, model in artifacts.models.items()
    }


def expected_io(artifacts: Artifacts, outputs: dict[str, np.ndarray]) -> bytes:
    """The .npz that `bench` checks against: `image`, and one array of logits per precision."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"image": artifacts.inputs, **outputs}
    np.savez_compressed(buffer, **arrays)
    return _stable_zip(buffer.getvalue())


def _stable_zip(blob: bytes) -> bytes:
    """Rewrite a zip with fixed times: the same run gives the same bytes."""
    import zipfile

    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(blob)) as old, zipfile.ZipFile(result, "w") as new:
        for item in sorted(old.namelist()):
            info = zipfile.ZipInfo(item, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(info, old.read(item))
    return result.getvalue()


def base_entries(artifacts: Artifacts, target: Target, *, exporter: str, variants: dict[str, str]) -> dict[str, Any]:
    """Manifest entries; `variants` maps a precision to its file."""
    model = artifacts.models[artifacts.primary]
    opset = max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    return {
        "exporter": exporter,
        "edgedafl": __version__,
        "student": artifacts.name,
        "target": target.name,
        "runtime": target.runtime,
        "runtime_range": target.runtime_range,
        "primary": variants[artifacts.primary],
        "variants": [{"precision": p, "file": f, "tolerance": TOLERANCES[p]} for p, f in variants.items()],
        "precision": artifacts.primary,
        "input": {"name": model.graph.input[0].name, "shape": list(artifacts.inputs[:1].shape), "layout": "NCHW"},
        "output": model.graph.output[0].name,
        "preprocess": artifacts.preprocess,
        "opset": opset,
        "ir_version": model.ir_version,
        "provenance": artifacts.provenance,
    }


def template(name: str) -> str:
    """A text file of the templates folder."""
    return resources.files("edgedafl_exporters.templates").joinpath(name).read_text("utf-8")


def readme(name: str, entries: dict[str, Any], target: Target) -> bytes:
    """Fill a README template."""
    preprocess = entries["preprocess"]
    values = {
        "student": entries["student"],
        "title": target.title,
        "primary": entries["primary"],
        "precision": entries["precision"],
        "runtime_range": entries["runtime_range"],
        "shape": "x".join(str(side) for side in entries["input"]["shape"]),
        "scale": ", ".join(f"{v:.8g}" for v in preprocess["scale"]),
        "offset": ", ".join(f"{v:.8g}" for v in preprocess["offset"]),
        "power_hint": target.power_hint,
        "notes": target.notes,
    }
    return string.Template(template(name)).substitute(values).encode()


def model_files(artifacts: Artifacts, variants: dict[str, str]) -> dict[str, bytes]:
    """The .onnx files of a bundle; `variants` maps a precision to its file."""
    return {variants[precision]: model_bytes(model) for precision, model in artifacts.models.items()}
