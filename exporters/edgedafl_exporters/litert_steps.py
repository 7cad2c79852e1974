"""What runs in a process of its own because it imports LiteRT's converter.

python -m edgedafl_exporters.litert_steps build FOLDER PRECISION...
python -m edgedafl_exporters.litert_steps answer FILE IMAGES SCORES
python -m edgedafl_exporters.litert_steps operators FILE LIST
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from edgedafl.graph.dequantize import without_integers
from edgedafl.graph.executor import OnnxModule
from edgedafl.quantize.ranges import Activation, ranges_of
from edgedafl_exporters.litert_metadata import ClassifierMetadata, with_files
from edgedafl_exporters.litert_nibbles import has_nibbles, to_nibbles
from edgedafl_exporters.litert_pixels import PIXEL_MAP, PixelMap, add_unsigned_ends, pixel_map_of, to_pixels

__all__ = ["answer", "build", "operators"]

_BEYOND = 1.25
"""Scores of real images run beyond those of synthetic ones, which seldom are of a clear class."""
_LEAST_RANGE = 1e-4
"""Of a layer that hardly answers: on a finer grid the bounds of its activation overflow 32 bits."""
_MATRIX = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"}


def build(folder: Path, precisions: list[str]) -> None:
    """Write `model.<precision>.tflite` of `fp32.onnx`, and of `int8.onnx` with ranges from `calibration.npy`.

    `metadata.json` says what goes into the files for Android's tools, where it is there.

    The integer file has the weights that rounding left in `int8.onnx`: on the same grid LiteRT's quantizer finds
    the same integers, or multiples of those of four bits.
    """
    for precision in precisions:
        graph = onnx.load(folder / f"{precision}.onnx")
        file, facts = folder / f"model.{precision}.tflite", folder / "metadata.json"
        about = ClassifierMetadata.from_dict(json.loads(facts.read_text("utf-8"))) if facts.exists() else None
        _convert(without_integers(graph) if precision == "int8" else graph, file, about)
        if precision == "int8":
            _quantize(file, np.load(folder / "calibration.npy"), about)
        few = precision == "int8" and has_nibbles(graph)
        file.write_bytes(_compact(file.read_bytes(), about, nibbles=few))


def _convert(graph: onnx.ModelProto, file: Path, about: ClassifierMetadata | None) -> None:
    """Channels last inside and at the input; pixels are mapped where the file takes them."""
    import litert_torch

    module: nn.Module = OnnxModule(graph)
    if about is not None and about.pixels:
        module = nn.Sequential(PixelMap(about), module)
    module.eval()
    batch, channels, height, width = (side.dim_value for side in graph.graph.input[0].type.tensor_type.shape.dim)
    example = torch.zeros(batch or 1, height, width, channels)
    wrapped = litert_torch.to_channel_last_io(module, args=[0]).eval()
    litert_torch.convert(wrapped, (example,)).export(str(file))


def _quantize(file: Path, images: np.ndarray, about: ClassifierMetadata | None) -> None:
    from ai_edge_quantizer import quantizer, recipe

    found = quantizer.Quantizer(str(file), recipe.static_wi8_ai8())
    pixels = about is not None and about.pixels
    given = to_pixels(images, about.scale, about.offset) if about is not None and pixels else images
    ranges = _ranges(file, found, given, pixels=pixels)
    found.quantize(ranges).export_model(str(file), overwrite=True)


def _ranges(file: Path, found: Any, images: np.ndarray, *, pixels: bool) -> dict[str, Any]:
    """Least and greatest value of every tensor, by name; of pixels 0 and 255."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    (key, signature), *_ = interpreter.get_signature_list().items()
    runner = interpreter.get_signature_runner(key)
    (image,), (scores,) = runner.get_input_details().values(), runner.get_output_details().values()
    seen = list(_looks(file, found, key, signature["inputs"][0], images))
    extremes = {}
    for name in seen[0]:
        lows = np.array([min(0.0, float(np.min(look[name]["min"]))) for look in seen])
        highs = np.array([max(0.0, float(np.max(look[name]["max"]))) for look in seen])
        extremes[name] = Activation(lows, highs, np.empty(0))
    robust = ranges_of(extremes, "robust")
    ranges = {}
    for name, shape in ((name, np.asarray(value["min"]).shape) for name, value in seen[0].items()):
        low, high = robust[name].low, robust[name].high
        if name == scores["name"]:
            low, high = _symmetric(extremes[name])
        if pixels and name == image["name"]:
            low, high = 0.0, 255.0
        high = max(high, low + _LEAST_RANGE)
        ranges[name] = {"min": np.full(shape, low, np.float32), "max": np.full(shape, high, np.float32)}
    return ranges


def _looks(file: Path, found: Any, key: str, name: str, images: np.ndarray) -> Iterator[dict[str, Any]]:
    """What every tensor reaches, one image after the other."""
    from ai_edge_quantizer import calibrator

    model = file.read_bytes()
    for image in images.transpose(0, 2, 3, 1):
        own = calibrator.Calibrator(model, num_threads=1)
        own.calibrate({key: [{name: np.ascontiguousarray(image[None])}]}, found._recipe_manager)
        yield own.get_model_qsvs()


def _symmetric(scores: Activation) -> tuple[float, float]:
    most = _BEYOND * float(max(-scores.lows.min(), scores.highs.max(), 1e-6))
    return -most, most


def _compact(model: bytes, about: ClassifierMetadata | None, *, nibbles: bool) -> bytes:
    """Short names, and equal vectors once: the converter names tensors by where they came from.

    What is known of the classifier goes in as well, and weights of four bits as such.
    """
    from ai_edge_litert import schema_py_generated as schema

    from edgedafl_exporters.shared_vectors import SharingBuilder

    tree = schema.ModelT.InitFromPackedBuf(model, 0)
    for graph in tree.subgraphs:
        for place, tensor in enumerate(graph.tensors):
            tensor.name = f"t{place}".encode()
    for buffer in tree.buffers:
        if buffer.offset > 1:  # weights that lie behind the tree: their places move
            buffer.data = np.frombuffer(model, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    if nibbles:
        to_nibbles(tree, schema)
    if about is not None:
        _inform(tree, schema, b"TFLITE_METADATA", about.to_bytes())
    if about is not None and about.pixels:
        known = {"scale": about.scale, "offset": about.offset}
        _inform(tree, schema, PIXEL_MAP, json.dumps(known).encode())
        (graph,) = tree.subgraphs
        if graph.tensors[int(graph.inputs[0])].type == schema.TensorType.INT8:
            add_unsigned_ends(tree, schema)
    builder = SharingBuilder(len(model))
    builder.Finish(tree.Pack(builder), b"TFL3")
    return with_files(bytes(builder.Output()), () if about is None else about.labels)


def _inform(tree: Any, schema: Any, name: bytes, content: bytes) -> None:
    tree.buffers.append(schema.BufferT(data=np.frombuffer(content, np.uint8)))
    tree.metadata = [*(tree.metadata or []), schema.MetadataT(name=name, buffer=len(tree.buffers) - 1)]


def answer(file: Path, images: Path, scores: Path) -> None:
    """Run a .tflite file on images (N,C,H,W) in model space one by one; its ends are integers or floats."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    pixel_map = pixel_map_of(schema.ModelT.InitFromPackedBuf(file.read_bytes(), 0))
    given_images = np.load(images)
    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    if pixel_map is not None:
        given_images = to_pixels(given_images, *pixel_map)
    for image in given_images.transpose(0, 2, 3, 1):
        interpreter.set_tensor(given["index"], _to_integers(image[None], given))
        interpreter.invoke()
        rows.append(_to_floats(interpreter.get_tensor(made["index"]), made))
    np.save(scores, np.concatenate(rows))


def _to_integers(value: np.ndarray, details: Any) -> np.ndarray:
    kind = np.dtype(details["dtype"])
    if kind.kind == "f":
        return np.ascontiguousarray(value, np.float32)
    scale, zero = details["quantization"]
    limits = np.iinfo(kind)
    whole: np.ndarray = np.clip(np.round(value / scale) + zero, limits.min, limits.max).astype(kind)
    return whole


def _to_floats(value: np.ndarray, details: Any) -> np.ndarray:
    scale, zero = details["quantization"]
    return value.astype(np.float32) if not scale else ((value.astype(np.float32) - zero) * scale).astype(np.float32)


def operators(file: Path, output: Path) -> None:
    """Write what a .tflite file is made of: operators, matrix layers in integers, its ends, live tensors."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(file), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    nodes = interpreter._get_ops_details()
    details = {d["index"]: d for d in interpreter.get_tensor_details()}
    layers = [node for node in nodes if node["op_name"] in _MATRIX]
    integer = [node for node in layers if np.dtype(details[node["inputs"][0]]["dtype"]).kind == "i"]
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = {
        "operators": sorted({str(node["op_name"]) for node in nodes}),
        "layers": len(layers),
        "integer_layers": len(integer),
        "input": _end(given),
        "output": _end(made),
        "live_bytes": _live_bytes(nodes, details, [given["index"]], [made["index"]]),
    }
    output.write_text(json.dumps(found))


def _end(details: Any) -> dict[str, Any]:
    scale, zero = details["quantization"]
    shape = [int(side) for side in details["shape"]]
    kind = np.dtype(details["dtype"]).name
    return {
        "name": str(details["name"]), "dtype": kind, "shape": shape, "scale": float(scale), "zero_point": int(zero)
    }  # fmt: skip


def _live_bytes(nodes: list[Any], details: dict[int, Any], given: list[int], made: list[int]) -> int:
    """Bytes of the tensors that are alive at the same time, constants left out: what an arena holds at least."""
    written = {int(t) for node in nodes for t in node["outputs"]} | set(given)
    last = {int(t): place for place, node in enumerate(nodes) for t in node["inputs"]} | dict.fromkeys(made, len(nodes))
    sizes = {
        t: int(np.prod(d["shape"], initial=1)) * np.dtype(d["dtype"]).itemsize
        for t, d in details.items()
        if t in written
    }
    held, peak = set(given), 0
    for place, node in enumerate(nodes):
        held |= {int(t) for t in node["outputs"]}
        peak = max(peak, sum(sizes[t] for t in held))
        held = {t for t in held if last.get(t, -1) > place}
    return peak


def _main(command: str, *arguments: str) -> None:
    torch.set_num_threads(1)
    if command == "build":
        build(Path(arguments[0]), list(arguments[1:]))
    elif command == "answer":
        answer(Path(arguments[0]), Path(arguments[1]), Path(arguments[2]))
    else:
        operators(Path(arguments[0]), Path(arguments[1]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
