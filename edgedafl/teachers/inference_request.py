"""Images to a server and answers from it, as the Open Inference Protocol writes them (KServe v2)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.tasks import Layout
from edgedafl.teachers.connection import Connection
from edgedafl.teachers.served_model import TYPES, ServedModel

if TYPE_CHECKING:
    import httpx

__all__ = ["infer"]

_RESULTS = {**TYPES, "INT32": np.int32, "INT16": np.int16, "INT8": np.int8, "BOOL": np.bool_}


def infer(connection: Connection, interface: ServedModel, layout: Layout, images: np.ndarray) -> np.ndarray:
    """Answers (N, K) to RGB images (N,C,H,W).

    Examples:
        >>> interface = describe(connection, TeacherOptions())  # doctest: +SKIP
        >>> infer(connection, interface, "NCHW", np.zeros((2, 3, 224, 224), np.float32)).shape  # doctest: +SKIP
    """
    count = len(images)
    images = images[:, ::-1] if interface.blue_first else images
    if interface.batch is not None and count < interface.batch:
        images = np.concatenate([images, np.repeat(images[-1:], interface.batch - count, 0)])
    if len(interface.image.shape) == 2:
        images = images.reshape(len(images), -1)
    elif layout == "NHWC":
        images = images.transpose(0, 2, 3, 1)
    data = np.ascontiguousarray(images, TYPES[interface.image.datatype])
    tensor: dict[str, Any] = {
        "name": interface.image.name, "shape": list(data.shape), "datatype": interface.image.datatype,
    }  # fmt: skip
    request: dict[str, Any] = {"inputs": [tensor]}
    if interface.output.name:
        request["outputs"] = [{"name": interface.output.name}]
    if interface.binary:
        tensor["parameters"] = {"binary_data_size": data.nbytes}
        for wanted in request.get("outputs", []):
            wanted["parameters"] = {"binary_data": True}
        head = json.dumps(request).encode()
        headers = {
            "content-type": "application/octet-stream",
            "inference-header-content-length": str(len(head)),
        }
        answer = connection.post(head + data.tobytes(), headers)
    else:
        tensor["data"] = data.reshape(-1).tolist()
        answer = connection.post(json.dumps(request).encode(), {"content-type": "application/json"})
    return _read(answer, interface.output.name, len(images))[:count]


def _chosen(outputs: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The named output; the only one, whatever it is called."""
    named = [entry for entry in outputs if entry["name"] == name]
    if named or len(outputs) == 1:
        return (named or outputs)[0]
    names = ", ".join(str(entry["name"]) for entry in outputs) or "none"
    raise UsageError(f"The server answers no output {name!r}; it answers {names}.", "Choose one with --output-name.")


def _read(answer: httpx.Response, name: str, rows: int) -> np.ndarray:
    """The named output of an inference answer, (rows, K)."""
    length = answer.headers.get("inference-header-content-length")
    try:
        head = json.loads(answer.content if length is None else answer.content[: int(length)])
        if isinstance(head, dict) and "outputs" not in head and "error" in head:
            raise UnsupportedModelError(
                f"The server answers an error: {str(head['error'])[:200]}.", "Look into the server's log."
            )
        outputs = head["outputs"]
        entry = _chosen(outputs, name)
        kind = _RESULTS[entry["datatype"]]
        if "data" in entry:
            values = np.asarray(entry["data"], np.float64 if np.dtype(kind).kind == "f" else np.int64)
        else:
            position = int(length or 0)
            for other in outputs:
                size = int(other.get("parameters", {}).get("binary_data_size", 0))
                if other is entry:
                    values = np.frombuffer(answer.content[position : position + size], kind)
                position += size
        return np.asarray(values, np.float32).reshape(rows, -1)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModelError(
            f"The server's answer holds no output {name!r} of {rows} rows ({type(error).__name__}).",
            "Check that the model answers one row of scores per image.",
        ) from error
