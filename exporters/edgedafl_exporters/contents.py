"""What all bundles share: model bytes, example inputs and outputs, manifest entries, `bench`."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from edgedafl import __version__
from edgedafl.devices import facts_script
from edgedafl.export import Artifacts, Bundle, write_bundle
from edgedafl.graph.edit import model_bytes
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.targets import Target
from edgedafl_exporters.documents import bill_of_materials, model_card, readme

__all__ = [
    "LABELS",
    "CpuExporter",
    "answer_with_onnxruntime",
    "compose",
    "expected_outputs",
    "label_lines",
    "model_files",
    "programs",
    "template",
    "tolerance_of",
]

LABELS = "labels.txt"
"""File of a bundle with the names of the classes."""

_STARTED = ("bench", "build.sh")
# A float32 graph may differ by rounding; an integer one by two steps of its last quantizer.
_TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2}


def compose(
    artifacts: Artifacts,
    target: Target,
    directory: Path,
    *,
    exporter: str,
    variants: dict[str, str],
    files: dict[str, bytes],
    outputs: dict[str, np.ndarray],
    run: dict[str, bytes],
    readme_name: str = "README_cpu.md",
    changes: dict[str, Any] | None = None,
) -> Bundle:
    """Write a bundle: an exporter's own files, and beside them what every bundle carries.

    Args:
        artifacts: What there is to ship.
        target: For what.
        directory: Where to.
        exporter: Name of the exporter.
        variants: File of each precision.
        files: The exporter's files by name.
        outputs: Expected scores of `artifacts.inputs` by precision.
        run: The exporter's programs; those named in `_STARTED` get the x bit.
        readme_name: Template of the README.
        changes: Manifest entries that differ from the target's.
    """
    entries = {**_entries(artifacts, target, exporter, variants), **(changes or {})}
    common = {
        "expected_io.npz": _expected_io(artifacts, outputs),
        "README.md": readme(template(readme_name), entries, target),
        "model-card.md": model_card(entries, artifacts, target),
    }
    if artifacts.labels:
        common[LABELS] = label_lines(artifacts.labels)
    merged = {**files, **run, **common}
    merged["sbom.cdx.json"] = bill_of_materials(entries, merged)
    return write_bundle(directory, merged, entries, executable=tuple(name for name in _STARTED if name in run))


def label_lines(labels: Sequence[str]) -> bytes:
    """The names of the classes as a file, one per line."""
    return "".join(f"{label}\n" for label in labels).encode()


def programs(bench: str = "bench_cpu.py", **others: str) -> dict[str, bytes]:
    """What runs on a device, from templates: `bench`, the script of facts, and an exporter's own by name."""
    return {
        "bench": template(bench).encode(),
        "facts.sh": facts_script().encode(),
        **{f"{name}.sh": template(file).encode() for name, file in others.items()},
    }


class CpuExporter:
    """What exporters for CPUs share: `bench` is in Python, and the model file itself is what runs."""

    def executables(self) -> dict[str, bytes]:
        """What runs on the device."""
        return programs()

    def try_build(self, file: Path) -> dict[str, Any]:
        """There is nothing to make of the file."""
        return {}


def tolerance_of(variant: str) -> float:
    """Largest relative difference from the build machine's scores; `name.int8` counts as int8."""
    return _TOLERANCES[variant.rsplit(".", 1)[-1]]


def expected_outputs(artifacts: Artifacts) -> dict[str, np.ndarray]:
    """What ONNX Runtime answers on the build machine, by precision."""
    return {
        precision: run_batched(open_session(model), artifacts.inputs, batch=1)
        for precision, model in artifacts.models.items()
    }


def answer_with_onnxruntime(file: Path, images: np.ndarray) -> np.ndarray:
    """Scores of a shipped .onnx or .ort file for float32 images (N,C,H,W) in model space."""
    return run_batched(open_session(file), images, batch=1)


def model_files(artifacts: Artifacts, variants: dict[str, str]) -> dict[str, bytes]:
    """The .onnx files of a bundle; `variants` maps a precision to its file."""
    return {variants[precision]: model_bytes(model) for precision, model in artifacts.models.items()}


def template(name: str) -> str:
    """A text file of the templates folder."""
    return resources.files("edgedafl_exporters.templates").joinpath(name).read_text("utf-8")


def _expected_io(artifacts: Artifacts, outputs: dict[str, np.ndarray]) -> bytes:
    """The .npz that `bench` checks against: `image`, and one array of logits per precision."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"image": artifacts.inputs, **outputs}
    np.savez_compressed(buffer, **arrays)
    return _stable_zip(buffer.getvalue())


def _stable_zip(blob: bytes) -> bytes:
    """Rewrite a zip with fixed times: the same run gives the same bytes."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(blob)) as old, zipfile.ZipFile(result, "w") as new:
        for item in sorted(old.namelist()):
            info = zipfile.ZipInfo(item, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(info, old.read(item))
    return result.getvalue()


def _entries(artifacts: Artifacts, target: Target, exporter: str, variants: dict[str, str]) -> dict[str, Any]:
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
        "variants": [{"precision": p, "file": f, "tolerance": tolerance_of(p)} for p, f in variants.items()],
        "precision": artifacts.primary,
        "input": {"name": model.graph.input[0].name, "shape": list(artifacts.inputs[:1].shape), "layout": "NCHW"},
        "output": model.graph.output[0].name,
        "preprocess": artifacts.preprocess,
        **({"labels": LABELS} if artifacts.labels else {}),
        "opset": opset,
        "ir_version": model.ir_version,
        "provenance": artifacts.provenance,
    }
