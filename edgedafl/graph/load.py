"""Reading ONNX files that somebody else made: damaged, partial or hostile ones included."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError

from edgedafl.errors import UnsupportedModelError, UsageError, reason_of
from edgedafl.graph.needed import read_by

__all__ = ["OnnxFile", "external_tensors", "load_onnx", "sha256_of"]


@dataclass(frozen=True)
class OnnxFile:
    """A model read from disk.

    Attributes:
        path: Where it was read from.
        model: The parsed model; weights in external files are loaded too.
        size: Bytes of the file and of its external data.
        sha256: Digest of the .onnx file.
    """

    path: Path
    model: onnx.ModelProto
    size: int
    sha256: str


def sha256_of(path: Path) -> str:
    """Hex digest of a file.

    Examples:
        >>> sha256_of(Path("LICENSE")) == hashlib.sha256(Path("LICENSE").read_bytes()).hexdigest()
        True
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def load_onnx(path: str | Path) -> OnnxFile:
    """Read and check an ONNX model.

    Raises:
        UsageError: If there is no such file.
        UnsupportedModelError: If the file is empty, damaged or not ONNX, or if its external data
            is missing or lies outside the model's folder.

    Examples:
        >>> file = load_onnx("examples/mnist/teacher.onnx")
        >>> file.path.name, len(file.model.graph.node) > 0
        ('teacher.onnx', True)
    """
    path = Path(path)
    if path.is_dir() or not path.exists():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"The model file {str(path)!r} {found}.", "Give the path of an .onnx file.")
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise UsageError(f"The model file {str(path)!r} cannot be read: {error.strerror}.") from error
    model = _parse(path, blob)
    _check_text(path, model)
    external = _check_external_data(path, model)
    try:
        _take_external_data(path, model)
    except OSError as error:
        raise UnsupportedModelError(
            f"The external data of {str(path)!r} cannot be read: {reason_of(error)}.", "Copy or export it again."
        ) from error
    _sort_nodes(model.graph)
    _check_structure(path, model)
    size = len(blob) + sum(file.stat().st_size for file in external)
    return OnnxFile(path, model, size, hashlib.sha256(blob).hexdigest())


def _parse(path: Path, blob: bytes) -> onnx.ModelProto:
    if not blob:
        raise UnsupportedModelError(f"{str(path)!r} is empty.", "Export or copy the model again.")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(blob)
    except DecodeError as error:
        raise UnsupportedModelError(
            f"{str(path)!r} is not a readable ONNX model ({len(blob)} bytes; truncated, or another format).",
            "Check that the copy is complete; a PyTorch model is named as package.module:factory.",
        ) from error
    if not model.graph.node or not model.opset_import:
        raise UnsupportedModelError(
            f"{str(path)!r} holds no ONNX graph ({len(blob)} bytes).",
            "Check that it is an .onnx file and that the copy is complete.",
        )
    return model


def external_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Tensors whose data lies in files of their own.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]>
        ...     g (float[1] x) => (float[1] y) <float[1] w = {2}> { y = Mul(x, w) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
        >>> [tensor.name for tensor in external_tensors(model)]
        ['w']
    """
    for tensor in (*_stored(model.graph), *_attached(_nodes(model))):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Of the graph and of its functions."""
    return [*model.graph.node, *(node for function in model.functions for node in function.node)]


def _stored(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def _attached(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Tensors in the attributes of nodes, and in the graphs that are attributes."""
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _stored(graph)
            yield from _attached(graph.node)


def _check_external_data(path: Path, model: onnx.ModelProto) -> list[Path]:
    """Every external file must exist inside the model's folder, links resolved.

    Caches of model hubs hold model and data as links into one folder of blobs: beside the model's real place
    is beside the model, too.
    """
    files: dict[Path, int] = {}
    for tensor in external_tensors(model):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute()
        target = _external_file(path, location)
        folders = (path.parent.resolve(), path.resolve().parent)
        if not location or absolute or not any(target.is_relative_to(folder) for folder in folders):
            raise UnsupportedModelError(
                f"Tensor {tensor.name!r} of {str(path)!r} has its data at {location!r}, outside the model's folder.",
                "Refused for safety; save the model again with its data file beside it.",
            )
        if not target.is_file():
            raise UnsupportedModelError(
                f"{str(path)!r} needs the external data file {location!r}, which is not beside it.",
                f"Copy {location!r} into {str(path.parent)!r}.",
            )
        end = _end_of(path, tensor, entries)
        files[target] = max(files.get(target, 0), end)
    for file, needed in files.items():
        if file.stat().st_size < needed:
            raise UnsupportedModelError(
                f"The external data file {file.name!r} has {file.stat().st_size} bytes; the model needs {needed}.",
                "The file is truncated: copy it again.",
            )
    return list(files)


def _external_file(path: Path, location: str) -> Path:
    return (path.parent.resolve() / location).resolve()


def _take_external_data(path: Path, model: onnx.ModelProto) -> None:
    """Read what was checked; onnx's own reader refuses every link."""
    for tensor in external_tensors(model):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        with _external_file(path, entries["location"]).open("rb") as stream:
            stream.seek(int(entries.get("offset") or 0))
            length = int(entries.get("length") or 0)
            tensor.raw_data = stream.read(length) if length else stream.read()
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _sort_nodes(graph: onnx.GraphProto) -> None:
    """Bring nodes into an order in which all that a node reads stands before it, where there is one.

    The format asks for it; some exporters write nodes as they come, and runtimes put up with that.
    """
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    needs = [{makers[name] for name in read_by(node) if name in makers} for node in graph.node]
    if all(max(before, default=-1) < place for place, before in enumerate(needs)):
        return
    readers: dict[int, list[int]] = {}
    for place, before in enumerate(needs):
        for maker in before:
            readers.setdefault(maker, []).append(place)
    missing = [len(before) for before in needs]
    ready, order = [place for place, count in enumerate(missing) if not count], list[int]()
    while ready:
        order.append(heapq.heappop(ready))  # the first as written among those that can run
        for place in readers.get(order[-1], ()):
            missing[place] -= 1
            if not missing[place]:
                heapq.heappush(ready, place)
    if len(order) == len(graph.node):  # else there is a ring: the check of the structure says so
        nodes = [onnx.NodeProto.FromString(graph.node[place].SerializeToString()) for place in order]
        del graph.node[:]
        graph.node.extend(nodes)


def _check_text(path: Path, model: onnx.ModelProto) -> None:
    """Names must be text; damaged ones are read as bytes."""
    graph = model.graph
    names = [value.name for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer)]
    names += [opset.domain for opset in model.opset_import]
    for node in _nodes(model):
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [attribute.name for attribute in node.attribute]
    broken = [name for name in names if not isinstance(name, str)]
    if broken:
        raise UnsupportedModelError(
            f"{str(path)!r} is damaged: the name {broken[0]!r} in it is not text.",
            "The file was cut or changed: copy or export it again.",
        )


def _end_of(path: Path, tensor: onnx.TensorProto, entries: dict[str, str]) -> int:
    """Where a tensor's bytes end in its file."""
    try:
        offset, length = (int(entries.get(key) or 0) for key in ("offset", "length"))
    except ValueError:
        offset = length = -1
    if min(offset, length) < 0:
        raise UnsupportedModelError(
            f"{str(path)!r} is damaged: it says of the data of {tensor.name!r} "
            f"offset {entries.get('offset')!r}, length {entries.get('length')!r}.",
            "Export it again.",
        )
    return offset + length


def _check_structure(path: Path, model: onnx.ModelProto) -> None:
    """Names must resolve and weights must have as many bytes as their shapes say."""
    graph = model.graph
    known = {i.name for i in graph.input} | {t.name for t in graph.initializer} | {""}
    known |= {t.values.name for t in graph.sparse_initializer}
    for node in graph.node:
        missing = [name for name in node.input if name not in known]
        if missing:
            raise UnsupportedModelError(
                f"{str(path)!r} is damaged: node {node.name or node.op_type!r} reads {missing[0]!r}, "
                "which nothing produces.",
                "The file is cut short or was edited wrongly: export it again.",
            )
        known.update(node.output)
    lost = [output.name for output in graph.output if output.name not in known]
    if lost or not graph.output:
        name = repr(lost[0]) if lost else "(none declared)"
        raise UnsupportedModelError(
            f"{str(path)!r} is damaged: nothing produces its output {name}.",
            "The file is cut short or was edited wrongly: export it again.",
        )
    for tensor in graph.initializer:
        try:
            onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise UnsupportedModelError(
                f"{str(path)!r} is damaged: the weight {tensor.name!r} does not fit its shape {list(tensor.dims)}.",
                "The file is cut short or was edited wrongly: export it again.",
            ) from error
