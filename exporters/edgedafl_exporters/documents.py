"""What a bundle says about itself: README, model card, software bill of materials."""

from __future__ import annotations

import hashlib
import json
import string
import uuid
from typing import Any

from edgedafl.export import Artifacts
from edgedafl.targets import Target
from edgedafl.units import format_bytes

__all__ = ["bill_of_materials", "model_card", "readme"]

# Any fixed value: names below it depend on the content alone.
_NAMESPACE = uuid.UUID("8f4a2c1e-6f0b-4d52-9c1d-0c9a5f3f7b6e")
_PACKAGES = {
    "onnxruntime": "onnxruntime",
    "executorch": "executorch",
    "litert": "ai-edge-litert",
    "openvino": "openvino",
    "tensorrt": "TensorRT's trtexec",
}


def readme(template: str, entries: dict[str, Any], target: Target) -> bytes:
    """Fill a README template."""
    preprocess = entries["preprocess"]
    values = {
        "student": entries["student"],
        "title": target.title,
        "primary": entries["primary"],
        "precision": entries["precision"],
        "runtime": entries["runtime"],
        "package": _PACKAGES.get(entries["runtime"], entries["runtime"]),
        "runtime_range": entries["runtime_range"],
        "shape": "x".join(str(side) for side in entries["input"]["shape"]),
        "scale": ", ".join(f"{v:.8g}" for v in preprocess["scale"]),
        "offset": ", ".join(f"{v:.8g}" for v in preprocess["offset"]),
        "middle": _middle(preprocess),
        "loading": _loading(entries),
        "power_hint": target.power_hint,
        "notes": target.notes,
    }
    return string.Template(template).substitute(values).encode()


def _middle(preprocess: dict[str, Any]) -> str:
    """Which part of a picture is shrunk to the input's size, where that is not all of it."""
    if "middle" not in preprocess:
        return ""
    share = f"{100 * preprocess['middle']:.1f} %"
    return (
        f"\nOf a picture as the teacher takes it, the middle {share} of width and height are shrunk to this size, "
        "by cubic interpolation."
    )


def _loading(entries: dict[str, Any]) -> str:
    """What weights of few bits take while they are taken apart."""
    if "loading_bytes" not in entries:
        return ""
    taken = format_bytes(entries["loading_bytes"])
    return f"\nWeights take fewer than eight bits in the file. To load it takes {taken} of memory more for a moment.\n"


def model_card(entries: dict[str, Any], artifacts: Artifacts, target: Target) -> bytes:
    """What the model is, how it was made, and what is not known of it."""
    provenance = entries["provenance"]
    files = [
        f"| `{v['file']}` | {v['precision']} | {_percent(artifacts, v['precision'])} |" for v in entries["variants"]
    ]
    facts = [f"- {name}: {value}" for name, value in artifacts.card.items()]
    lines = [
        "---",
        "library_name: edgedafl",
        "pipeline_tag: image-classification",
        "tags: [distillation, data-free, quantized, edge]",
        "---",
        f"# {entries['student']} for {target.title}",
        "",
        "A small image classifier that learned from another model's answers to generated images.",
        "No image of the data that the other model was trained on was used, at any step.",
        "",
        "| file | precision | synthetic agreement |",
        "|---|---|---:|",
        *files,
        "",
        "Synthetic agreement is the share of generated images on which this model and its teacher name the same",
        "class. It is not accuracy: on real images nothing is known unless somebody measured it.",
        "",
        "## How it was made",
        "",
        *facts,
        f"- Teacher: sha256 {provenance.get('teacher_sha256', 'not recorded')}",
        f"- Calibration images: sha256 {provenance.get('calibration', 'not recorded')}",
        f"- EdgeDAFL {entries['edgedafl']}, exporter {entries['exporter']}, seed {provenance.get('seed', '?')}",
        "",
        "## Limits",
        "",
        "- It inherits the teacher's errors and biases, and adds its own.",
        "- Images unlike those the teacher knows may be named with high confidence all the same.",
        "- The teacher's licence may extend to models made from it.",
        "",
    ]
    return "\n".join(lines).encode()


def _percent(artifacts: Artifacts, precision: str) -> str:
    share = artifacts.agreements.get(precision)
    return "not known" if share is None else f"{100 * share:.2f} %"


def bill_of_materials(entries: dict[str, Any], files: dict[str, bytes]) -> bytes:
    """A CycloneDX 1.6 document: the model, its files with digests, and what it was made with.

    The same content gives the same document; so there is no time in it.
    """
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    serial = uuid.uuid5(_NAMESPACE, json.dumps(digests))
    versions = entries["provenance"].get("versions", {})
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "edgedafl", "version": entries["edgedafl"]}]},
            "component": {
                "type": "machine-learning-model",
                "bom-ref": "model",
                "name": f"{entries['student']}-{entries['target']}",
                "version": digests[entries["primary"]][:12],
                "hashes": [{"alg": "SHA-256", "content": digests[entries["primary"]]}],
                "modelCard": {"modelParameters": {"task": "image-classification"}},
            },
        },
        "components": [
            *(_file(name, digest) for name, digest in digests.items()),
            *(_package(name, version) for name, version in sorted(versions.items())),
        ],
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def _file(name: str, digest: str) -> dict[str, Any]:
    return {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": [{"alg": "SHA-256", "content": digest}]}


def _package(name: str, version: str) -> dict[str, Any]:
    place = f"pkg:pypi/{name}@{version.replace('+', '%2B')}"
    return {"type": "library", "bom-ref": place, "name": name, "version": version, "purl": place, "scope": "excluded"}
