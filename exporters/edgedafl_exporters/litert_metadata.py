"""What Android's tools read in a .tflite file: the size and pixels of its image, the names of its classes.

The form is the published schema of TensorFlow Lite metadata, version 1.0 (`metadata_schema.fbs`, "M001"). Libraries
that write it come with computer vision or TensorFlow, so the few tables of a classifier are written here.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import flatbuffers

from edgedafl_exporters.contents import LABELS, label_lines

__all__ = ["ClassifierMetadata", "with_files"]

_IDENTIFIER = b"M001"
_LEAST_PARSER = "1.0.0"
_RGB, _GREY = 1, 2
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2
_NORMALIZATION = 1
_AXIS_LABELS = 2
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class ClassifierMetadata:
    """What is known of a classifier of images.

    Attributes:
        name: Of the model.
        shape: (C, H, W) of its image.
        scale: Of pixels 0 to 255, per channel: the model is fed `pixel * scale + offset`.
        offset: Per channel.
        labels: Names of the classes, in order; none where they are not known.
        pixels: Whether the file takes pixels as they are, and its first layer maps them.
    """

    name: str
    shape: tuple[int, int, int]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    labels: tuple[str, ...] = ()
    pixels: bool = False

    def to_dict(self) -> dict[str, Any]:
        """A JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ClassifierMetadata:
        """Inverse of `to_dict`."""
        channels, height, width = data["shape"]
        scale, offset, labels = (tuple(data[name]) for name in ("scale", "offset", "labels"))
        return cls(str(data["name"]), (channels, height, width), scale, offset, labels, bool(data["pixels"]))

    def to_bytes(self) -> bytes:
        """The `TFLITE_METADATA` buffer of a model."""
        return _Writer(self).write()


def with_files(model: bytes, labels: Sequence[str]) -> bytes:
    """A model with its class names behind it: the file is a zip archive as well, in which readers find them.

    Args:
        model: A .tflite file.
        labels: Names of the classes; with none the model stays as it is.
    """
    if not labels:
        return model
    file = io.BytesIO(model)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(LABELS, _LONG_AGO), label_lines(labels))
    return file.getvalue()


class _Writer:
    """Writes tables from the inside out, as FlatBuffers are built. Numbers of fields are those of the schema."""

    def __init__(self, about: ClassifierMetadata) -> None:
        self._about, self._builder = about, flatbuffers.Builder(1024)
        # One value holds for all channels. Some readers take no others.
        self._pairs = [(1.0, 0.0)] if about.pixels else list(zip(about.scale, about.offset, strict=True))

    def write(self) -> bytes:
        graph = self._table(7, {2: self._tables([self._image()]), 3: self._tables([self._scores()])})
        model = self._table(
            8, {0: self._text(self._about.name), 3: self._tables([graph]), 7: self._text(_LEAST_PARSER)}
        )
        self._builder.Finish(model, _IDENTIFIER)
        return bytes(self._builder.Output())

    def _image(self) -> int:
        channels, height, width = self._about.shape
        size = self._table(2, numbers={0: ("Uint32", width), 1: ("Uint32", height)})
        properties = self._table(2, {1: size}, {0: ("Int8", _RGB if channels == 3 else _GREY)})
        return self._table(
            7,
            {
                0: self._text("image"),
                1: self._text("Channels last. Pixels of 0 to 255, less the mean, divided by the deviation."),
                3: self._table(3, {1: properties}, {0: ("Uint8", _IMAGE_PROPERTIES)}),
                4: self._tables([self._normalization()]),
                5: self._stats(),
            },
        )

    def _normalization(self) -> int:
        means = self._floats([-offset / scale for scale, offset in self._pairs])
        options = self._table(2, {0: means, 1: self._floats([1 / scale for scale, _ in self._pairs])})
        return self._table(2, {1: options}, {0: ("Uint8", _NORMALIZATION)})

    def _stats(self) -> int:
        highest = self._floats([255 * scale + offset for scale, offset in self._pairs])
        return self._table(2, {0: highest, 1: self._floats([offset for _, offset in self._pairs])})

    def _scores(self) -> int:
        content = self._table(3, {1: self._table(0, {})}, {0: ("Uint8", _FEATURE_PROPERTIES)})
        fields = {0: self._text("scores"), 1: self._text("Logits: the largest is the class."), 3: content}
        if self._about.labels:
            file = self._table(
                4, {0: self._text(LABELS), 1: self._text("Names of the classes.")}, {2: ("Int8", _AXIS_LABELS)}
            )
            fields[6] = self._tables([file])
        return self._table(7, fields)

    def _text(self, value: str) -> int:
        return int(self._builder.CreateString(value))

    def _floats(self, values: Sequence[float]) -> int:
        self._builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self._builder.PrependFloat32(value)
        return int(self._builder.EndVector())

    def _tables(self, places: Sequence[int]) -> int:
        self._builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            self._builder.PrependUOffsetTRelative(place)
        return int(self._builder.EndVector())

    def _table(self, fields: int, places: dict[int, int] | None = None, numbers: dict[int, Any] | None = None) -> int:
        """A table of so many fields: where some of them lie, and numbers with their types."""
        self._builder.StartObject(fields)
        for field, place in (places or {}).items():
            self._builder.PrependUOffsetTRelativeSlot(field, place, 0)
        for field, (kind, value) in (numbers or {}).items():
            getattr(self._builder, f"Prepend{kind}Slot")(field, value, 0)
        return int(self._builder.EndObject())
