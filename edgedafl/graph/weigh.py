"""Bytes of an ONNX file without reading its weights: a gate looks at files of any size on small machines."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from edgedafl.errors import UnsupportedModelError, UsageError

__all__ = ["external_locations", "weigh", "weigh_alone"]

# Fields of ModelProto and GraphProto, and how protobuf writes them: onnx.proto, protobuf's encoding guide.
_GRAPH, _OPSETS, _NODE = 7, 8, 1
_VARINT, _EIGHT_BYTES, _COUNTED, _FOUR_BYTES = 0, 1, 2, 5
_PIECE = 1 << 20
_EXTERNAL = b"location"  # the key by which a tensor names a file of its own


def weigh(path: Path) -> int:
    """Bytes of a model, of its external data as well.

    Raises:
        UsageError: If there is no such file.
        UnsupportedModelError: If it is not an ONNX model.

    Examples:
        >>> import tempfile
        >>> import onnx
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
        >>> path = Path(tempfile.mkdtemp()) / "model.onnx"
        >>> onnx.save(onnx.parser.parse_model(text), path)
        >>> weigh(path) == path.stat().st_size
        True
    """
    size = weigh_alone(path)
    if _mentions(path, _EXTERNAL):
        from edgedafl.graph.load import load_onnx

        return load_onnx(path).size
    return size


def external_locations(path: Path) -> tuple[str, ...]:
    """The files of a model's external data, as the model names them; they need not be there.

    Examples:
        >>> import tempfile
        >>> import onnx
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
        >>> path = Path(tempfile.mkdtemp()) / "model.onnx"
        >>> onnx.save(onnx.parser.parse_model(text), path)
        >>> external_locations(path)
        ()
    """
    if not _mentions(path, _EXTERNAL):
        return ()
    import onnx

    from edgedafl.graph.load import external_tensors

    model = onnx.load(path, load_external_data=False)
    entries = (entry for tensor in external_tensors(model) for entry in tensor.external_data)
    return tuple(dict.fromkeys(entry.value for entry in entries if entry.key == "location"))


def weigh_alone(path: Path) -> int:
    """Bytes of a model's own file.

    Raises:
        UsageError: If there is no such file.
        UnsupportedModelError: If it is not an ONNX model.

    Examples:
        >>> import tempfile
        >>> import onnx
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
        >>> path = Path(tempfile.mkdtemp()) / "model.onnx"
        >>> onnx.save(onnx.parser.parse_model(text), path)
        >>> weigh_alone(path) == path.stat().st_size
        True
    """
    if not path.is_file():
        raise UsageError(f"The model file {str(path)!r} does not exist.", "Give the path of an .onnx file.")
    size = path.stat().st_size
    if not size:
        raise UnsupportedModelError(f"{str(path)!r} is empty.", "Export or copy the model again.")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if not _is_model(content):
            raise UnsupportedModelError(
                f"{str(path)!r} is not a readable ONNX model ({size} bytes; truncated, or another format).",
                "Check that the copy is complete.",
            )
    return size


def _mentions(path: Path, word: bytes) -> bool:
    """Whether a file holds a word; it is read piece by piece, so that little of it is in memory."""
    kept = b""
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            if word in kept + piece:
                return True
            kept = piece[-len(word) :]
    return False


def _is_model(content: mmap.mmap) -> bool:
    """Whether the outermost fields are whole and those of a model with a graph that has nodes."""
    found = set()
    try:
        for number, start, end in _fields(content, 0, len(content)):
            found.add(number)
            if number == _GRAPH and not any(inner == _NODE for inner, _, _ in _fields(content, start, end)):
                return False
    except ValueError:
        return False
    return {_GRAPH, _OPSETS} <= found


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of every field of a message.

    Raises:
        ValueError: If they are not whole.
    """
    while start < end:
        tag, start = _number(content, start, end)
        kind, number = tag & 7, tag >> 3
        if kind == _VARINT:
            _, after = _number(content, start, end)
        elif kind == _COUNTED:
            length, start = _number(content, start, end)
            after = start + length
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            after = start + (8 if kind == _EIGHT_BYTES else 4)
        else:
            raise ValueError(kind)
        if after > end or not number:
            raise ValueError(number)
        yield number, start, after
        start = after


def _number(content: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = shift = 0
    while start < end:
        byte = content[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
        shift += 7
        if shift > 63:
            break
    raise ValueError(start)
