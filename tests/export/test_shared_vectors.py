"""FlatBuffers with equal vectors written once."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest
from flatbuffers import table

from edgedafl_exporters.shared_vectors import SharingBuilder

VECTORS: list[np.ndarray] = [
    np.zeros(300, np.int64),
    np.arange(5, dtype=np.uint8),
    np.zeros(300, np.int64),
    np.zeros(75, np.int64),
    np.zeros(300, np.float64),
    np.arange(5, dtype=np.uint8),
]


def written(kind: type, names: list[str]) -> bytes:
    """A table of the vectors above and of a vector of strings."""
    builder = kind(16)
    places = [builder.CreateNumpyVector(vector) for vector in VECTORS]
    strings = [builder.CreateString(name) for name in names]
    builder.StartVector(4, len(strings), 4)
    for place in reversed(strings):
        builder.PrependUOffsetTRelative(place)
    places.append(builder.EndVector())
    builder.StartObject(len(places))
    for slot, place in enumerate(places):
        builder.PrependUOffsetTRelativeSlot(slot, place, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def read(blob: bytes) -> tuple[list[np.ndarray], list[str]]:
    """Both, and that every vector of 64-bit numbers lies where such numbers may."""
    start = int.from_bytes(blob[:4], "little")
    found = table.Table(blob, start)
    vectors = []
    for slot, wanted in enumerate(VECTORS):
        field = found.Offset(4 + 2 * slot)
        assert found.Vector(field) % wanted.dtype.alignment == 0
        raw = np.frombuffer(blob, wanted.dtype, found.VectorLen(field), found.Vector(field))
        vectors.append(raw)
    field = found.Offset(4 + 2 * len(VECTORS))
    spots = [found.Vector(field) + 4 * place for place in range(found.VectorLen(field))]
    return vectors, [found.String(spot).decode() for spot in spots]


@pytest.mark.parametrize("names", [[], ["a"], ["one", "two", "one"]])
def test_what_is_read_is_what_was_written_in_fewer_bytes(names: list[str]) -> None:
    plain, shared = written(flatbuffers.Builder, names), written(SharingBuilder, names)
    for blob in (plain, shared):
        vectors, strings = read(blob)
        assert strings == names
        for mine, wanted in zip(vectors, VECTORS, strict=True):
            np.testing.assert_array_equal(mine, wanted)
    # 300 zeros of 64 bits and five bytes are there once; 300 zeros of another type share those bytes.
    assert len(plain) - len(shared) >= 2 * 8 * 300


def test_vectors_of_places_are_not_shared() -> None:
    """Two vectors of places may hold the same bytes and mean different strings."""
    builder = SharingBuilder(16)
    places = []
    for text in ("aaaa", "bbbb"):
        name = builder.CreateString(text)
        builder.StartVector(4, 1, 4)
        builder.PrependUOffsetTRelative(name)
        places.append(builder.EndVector())
    assert places[0] != places[1]
    builder.StartObject(2)
    for slot, place in enumerate(places):
        builder.PrependUOffsetTRelativeSlot(slot, place, 0)
    builder.Finish(builder.EndObject())
    blob = bytes(builder.Output())
    found = table.Table(blob, int.from_bytes(blob[:4], "little"))
    assert [found.String(found.Vector(found.Offset(4 + 2 * slot))) for slot in range(2)] == [b"aaaa", b"bbbb"]
