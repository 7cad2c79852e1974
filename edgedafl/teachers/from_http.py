"""A classifier behind the Open Inference Protocol (KServe v2): Triton, MLServer, OVMS, TorchServe.

`https://host/v2/models/name` answers what the model takes and gives; `.../infer` answers images.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.tasks import Layout
from edgedafl.teachers.base import TeacherSpec
from edgedafl.teachers.connection import Connection, TooLargeError
from edgedafl.teachers.decode import are_labels, guess_output, guess_task
from edgedafl.teachers.forward import ForwardTeacher
from edgedafl.teachers.options import TeacherOptions

if TYPE_CHECKING:
    import httpx

__all__ = ["HttpTeacher", "load_http_teacher", "looks_like_url"]

_log = logging.getLogger(__name__)
_TRIAL_ROWS = 4
_BATCH = 64
_TYPES = {"FP32": np.float32, "FP64": np.float64, "FP16": np.float16, "UINT8": np.uint8, "INT64": np.int64}
_RESULTS = {**_TYPES, "INT32": np.int32, "INT16": np.int16, "INT8": np.int8, "BOOL": np.bool_}


def looks_like_url(source: str) -> bool:
    """Whether a teacher is named by an address."""
    return source.lower().startswith(("http://", "https://"))


@dataclass(frozen=True)
class _Tensor:
    """One input or output as the server declares it."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Interface:
    """What the server says of a model."""

    image: _Tensor
    output: _Tensor
    batch: int | None
    largest: int
    binary: bool
    blue_first: bool


class HttpTeacher(ForwardTeacher):
    """A teacher on a server."""

    def __init__(
        self,
        spec: TeacherSpec,
        connection: Connection,
        interface: _Interface,
        *,
        max_queries: int | None = None,
    ) -> None:
        super().__init__(spec, max_queries=max_queries)
        self._connection = connection
        self._interface = interface
        self._largest = interface.largest

    @property
    def _at_once(self) -> int:
        return self._largest

    def _forward(self, images: np.ndarray) -> np.ndarray:
        try:
            return _infer(self._connection, self._interface, self.spec.layout, images)
        except TooLargeError:
            if len(images) == 1:
                raise
            self._largest = len(images) // 2
            _log.warning("The server refused %d images at once; trying %d.", len(images), self._largest)
            halves = images[: self._largest], images[self._largest :]
            return np.concatenate([self._forward(half) for half in halves])


def load_http_teacher(url: str, options: TeacherOptions) -> HttpTeacher:
    """Look at a served model and ask it about a few random images.

    Raises:
        UsageError: If the address, credentials or a needed choice is wrong or missing.
        MeasurementError: If the server stays away.
        UnsupportedModelError: If it speaks another protocol, or the model is not an image classifier.
    """
    if options.access == "gradient":
        raise UsageError("A server gives no gradients.", "Use --access scores or labels.")
    connection = Connection(url, token=_token(options), timeout=options.timeout)
    interface = _describe(connection, options)
    shape, layout = _image_shape(interface.image, options)
    preprocess = options.preprocess(shape[0], "UINT8" if interface.image.datatype == "UINT8" else "FLOAT")
    rng = np.random.default_rng(0)
    pixels = rng.uniform(preprocess.low[0], preprocess.high[0], (_TRIAL_ROWS, *shape)).astype(np.float32)
    if interface.image.datatype == "UINT8":
        pixels = pixels.round()
    try:
        first, second = (_infer(connection, interface, layout, pixels) for _ in range(2))
    except TooLargeError:  # four images: there are servers that take one
        interface = replace(interface, largest=1)
        first, second = (
            np.concatenate([_infer(connection, interface, layout, row[None]) for row in pixels]) for _ in range(2)
        )
    _check_answers(first, second, interface.output.name)
    is_integer = interface.output.datatype.startswith(("INT", "UINT", "BOOL"))
    kind = "labels" if is_integer and are_labels(first) else guess_output(first)
    classes = first.shape[1]
    if kind == "labels" and classes == 1:
        if options.classes is None:
            raise UsageError("The server answers class indices only.", "Say how many there are: --classes 10.")
        classes = options.classes
    task = options.task or guess_task(kind, classes)
    if task != "single-label" and kind == "logits" and first.min() >= 0 and first.max() <= 1:
        kind = "sigmoid"
    spec = TeacherSpec(
        source=url,
        input_shape=shape,
        layout=layout,
        dtype=interface.image.datatype,
        preprocess=preprocess,
        num_classes=classes,
        task=task,
        output=kind,
        access="labels" if kind == "labels" or options.access == "labels" else "scores",
        has_features=False,
        batch_norms=0,
        batch=interface.batch,
        parameters=0,
        macs=0,
        size=0,
        sha256="",
    )
    teacher = HttpTeacher(spec, connection, interface, max_queries=options.max_queries)
    # The trial showed the server 2 x 4 rows; they count like any others.
    teacher.queries = 2 * _TRIAL_ROWS
    return teacher


def _token(options: TeacherOptions) -> str | None:
    if options.token_variable is None:
        return None
    token = os.environ.get(options.token_variable)
    if not token:
        raise UsageError(
            f"The environment variable {options.token_variable!r} is not set.", "Export the token under that name."
        )
    return token


def _describe(connection: Connection, options: TeacherOptions) -> _Interface:
    found = connection.get(connection.url)
    try:
        inputs, outputs = _tensors(found["inputs"]), _tensors(found["outputs"])
        inputs, outputs = inputs or _declared_image(options), outputs or _declared_output(options)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnsupportedModelError(
            f"{connection.url} describes no model.",
            "Check the name, and that the server speaks the Open Inference Protocol (KServe v2).",
        ) from error
    if len(inputs) != 1 and options.input_name is None:
        names = ", ".join(t.name for t in inputs) or "none"
        raise UnsupportedModelError(
            f"The model takes {len(inputs)} inputs ({names}); a classifier of images takes one.",
            "Serve a model with one image input.",
        )
    image = _named(inputs, options.input_name, "input", "--input-name")
    if image.datatype not in _TYPES:
        raise UnsupportedModelError(
            f"The input {image.name!r} has type {image.datatype}; expected a float or uint8 image.",
            "EdgeDAFL compresses image classifiers only.",
        )
    if len(outputs) != 1 and options.output_name is None:
        names = ", ".join(t.name for t in outputs) or "none"
        raise UsageError(f"The model has {len(outputs)} outputs: {names}.", "Choose one with --output-name.")
    output = _named(outputs, options.output_name, "output", "--output-name")
    server = connection.get(connection.root)
    extensions = server.get("extensions") or [] if isinstance(server, dict) else []
    fixed = image.shape[0] if len(image.shape) in (2, 4) and image.shape[0] > 0 else None
    config = connection.get(f"{connection.url}/config")
    limit = int(config.get("max_batch_size") or 0) if isinstance(config, dict) else 0
    binary = "binary_tensor_data" in extensions
    return _Interface(image, output, fixed, fixed or limit or _BATCH, binary, options.blue_first)


def _tensors(entries: Any) -> list[_Tensor]:
    """What is declared; servers that were not told their model's tensors name none."""
    rows = [] if entries is None else entries
    return [_Tensor(str(e["name"]), str(e["datatype"]), tuple(int(s) for s in e.get("shape", []))) for e in rows]


def _declared_image(options: TeacherOptions) -> list[_Tensor]:
    if options.input_shape is None:
        raise UsageError(
            "The server does not say what the model takes.",
            "Say it: --input-shape C,H,W, and --input-name where the image is not called 'image'.",
        )
    return [_Tensor(options.input_name or "image", "FP32", (-1, *options.input_shape))]


def _declared_output(options: TeacherOptions) -> list[_Tensor]:
    return [_Tensor(options.output_name or "", "FP32", ())]  # whatever the only output is called


def _named(tensors: list[_Tensor], name: str | None, what: str, flag: str) -> _Tensor:
    chosen = [t for t in tensors if name in (None, t.name)]
    if not chosen:
        names = ", ".join(t.name for t in tensors)
        raise UsageError(f"The model has no {what} {name!r}; it has {names}.", f"Correct {flag}.")
    return chosen[0]


def _image_shape(image: _Tensor, options: TeacherOptions) -> tuple[tuple[int, int, int], Layout]:
    sides = image.shape[1:] if len(image.shape) == 4 else image.shape
    layout = options.layout or ("NHWC" if len(sides) == 3 and sides[2] in (1, 3) and sides[0] not in (1, 3) else "NCHW")
    if options.input_shape is not None:
        return options.input_shape, layout
    if len(sides) != 3 or min(sides) < 1:
        raise UsageError(
            f"The input {image.name!r} is declared {list(image.shape)}: its image size is not said.",
            "Say it, e.g. --input-shape 3,224,224.",
        )
    c, h, w = sides if layout == "NCHW" else (sides[2], sides[0], sides[1])
    return (c, h, w), layout


def _check_answers(first: np.ndarray, second: np.ndarray, name: str) -> None:
    if not np.isfinite(first).all():
        raise UnsupportedModelError(
            f"The output {name!r} holds NaN or infinity on ordinary images.", "Check the served model."
        )
    if first.shape != second.shape or not np.allclose(first, second, atol=1e-3 * max(1.0, float(np.abs(first).max()))):
        raise UnsupportedModelError(
            "The server gives different answers to the same images.",
            "Serve one version in inference mode (no dropout, no canary beside it).",
        )


def _infer(connection: Connection, interface: _Interface, layout: Layout, images: np.ndarray) -> np.ndarray:
    """Answers (N, K) to RGB images (N,C,H,W)."""
    count = len(images)
    images = images[:, ::-1] if interface.blue_first else images
    if interface.batch is not None and count < interface.batch:
        images = np.concatenate([images, np.repeat(images[-1:], interface.batch - count, 0)])
    if len(interface.image.shape) == 2:
        images = images.reshape(len(images), -1)
    elif layout == "NHWC":
        images = images.transpose(0, 2, 3, 1)
    data = np.ascontiguousarray(images, _TYPES[interface.image.datatype])
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
