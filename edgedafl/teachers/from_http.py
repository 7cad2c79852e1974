"""A classifier behind the Open Inference Protocol (KServe v2): Triton, MLServer, OVMS, TorchServe.

`https://host/v2/models/name` answers what the model takes and gives; `.../infer` answers images.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace

import numpy as np

from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.teachers.base import TeacherSpec
from edgedafl.teachers.connection import Connection, TooLargeError
from edgedafl.teachers.decode import are_labels, guess_output, guess_task
from edgedafl.teachers.forward import ForwardTeacher
from edgedafl.teachers.inference_request import infer
from edgedafl.teachers.options import TeacherOptions
from edgedafl.teachers.served_model import ServedModel, describe, image_shape

__all__ = ["HttpTeacher", "load_http_teacher", "looks_like_url"]

_log = logging.getLogger(__name__)
_TRIAL_ROWS = 4


def looks_like_url(source: str) -> bool:
    """Whether a teacher is named by an address.

    Examples:
        >>> looks_like_url("https://host/v2/models/name"), looks_like_url("model.onnx")
        (True, False)
    """
    return source.lower().startswith(("http://", "https://"))


class HttpTeacher(ForwardTeacher):
    """A teacher on a server."""

    def __init__(
        self,
        spec: TeacherSpec,
        connection: Connection,
        interface: ServedModel,
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
            return infer(self._connection, self._interface, self.spec.layout, images)
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

    Examples:
        >>> load_http_teacher("https://example.com/v2/models/cats", TeacherOptions()).spec.access  # doctest: +SKIP
        'scores'
    """
    if options.access == "gradient":
        raise UsageError("A server gives no gradients.", "Use --access scores or labels.")
    connection = Connection(url, token=_token(options), timeout=options.timeout)
    interface = describe(connection, options)
    shape, layout = image_shape(interface.image, options)
    preprocess = options.preprocess(shape[0], "UINT8" if interface.image.datatype == "UINT8" else "FLOAT")
    span = preprocess.low[0], preprocess.high[0]
    pixels = np.random.default_rng(0).uniform(*span, (_TRIAL_ROWS, *shape)).astype(np.float32)
    pixels = pixels.round() if interface.image.datatype == "UINT8" else pixels
    try:
        first, second = (infer(connection, interface, layout, pixels) for _ in range(2))
    except TooLargeError:  # four images: there are servers that take one
        interface = replace(interface, largest=1)
        first, second = (
            np.concatenate([infer(connection, interface, layout, row[None]) for row in pixels]) for _ in range(2)
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
    teacher.queries = 2 * _TRIAL_ROWS  # of the trial: they count like any others
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
