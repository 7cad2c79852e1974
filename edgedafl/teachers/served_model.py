"""What a server of the Open Inference Protocol declares about a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.tasks import Layout
from edgedafl.teachers.connection import Connection
from edgedafl.teachers.options import TeacherOptions

__all__ = ["TYPES", "ServedModel", "ServedTensor", "describe", "image_shape"]

_BATCH = 64
TYPES = {"FP32": np.float32, "FP64": np.float64, "FP16": np.float16, "UINT8": np.uint8, "INT64": np.int64}
"""Of images, by the protocol's names."""


@dataclass(frozen=True)
class ServedTensor:
    """One input or output as the server declares it.

    Attributes:
        name: Empty where the server names none.
        datatype: By the protocol's names.
        shape: Sides, the batch first; -1 for a side that is free.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ServedModel:
    """What the server says of a model.

    Attributes:
        image: The input.
        output: The output that is asked for.
        batch: Images of every request, where the model takes no other number.
        largest: Most images of one request.
        binary: Whether tensors travel as bytes beside the JSON.
        blue_first: Whether the model takes BGR images.
    """

    image: ServedTensor
    output: ServedTensor
    batch: int | None
    largest: int
    binary: bool
    blue_first: bool


def describe(connection: Connection, options: TeacherOptions) -> ServedModel:
    """Ask a server what its model takes and gives.

    Args:
        connection: To the model's address.
        options: Say what the server does not.

    Raises:
        UsageError: If something has to be chosen.
        UnsupportedModelError: If it is not a model of one image, or another protocol is spoken.

    Examples:
        >>> describe(connection, TeacherOptions()).image.shape  # doctest: +SKIP
    """
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
    if image.datatype not in TYPES:
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
    return ServedModel(image, output, fixed, fixed or limit or _BATCH, binary, options.blue_first)


def _tensors(entries: Any) -> list[ServedTensor]:
    """What is declared; servers that were not told their model's tensors name none."""
    rows = [] if entries is None else entries
    return [ServedTensor(str(e["name"]), str(e["datatype"]), tuple(int(s) for s in e.get("shape", []))) for e in rows]


def _declared_image(options: TeacherOptions) -> list[ServedTensor]:
    if options.input_shape is None:
        raise UsageError(
            "The server does not say what the model takes.",
            "Say it: --input-shape C,H,W, and --input-name where the image is not called 'image'.",
        )
    return [ServedTensor(options.input_name or "image", "FP32", (-1, *options.input_shape))]


def _declared_output(options: TeacherOptions) -> list[ServedTensor]:
    return [ServedTensor(options.output_name or "", "FP32", ())]  # whatever the only output is called


def _named(tensors: list[ServedTensor], name: str | None, what: str, flag: str) -> ServedTensor:
    chosen = [t for t in tensors if name in (None, t.name)]
    if not chosen:
        names = ", ".join(t.name for t in tensors)
        raise UsageError(f"The model has no {what} {name!r}; it has {names}.", f"Correct {flag}.")
    return chosen[0]


def image_shape(image: ServedTensor, options: TeacherOptions) -> tuple[tuple[int, int, int], Layout]:
    """Channels, height and width of a declared input, and which axis the channels are.

    Raises:
        UsageError: If the size is neither declared nor given.

    Examples:
        >>> image_shape(ServedTensor("image", "FP32", (-1, 224, 224, 3)), TeacherOptions())
        ((3, 224, 224), 'NHWC')
    """
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
