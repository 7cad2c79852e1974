"""ONNX Runtime sessions on the CPU, opened the same way everywhere."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from edgedafl.errors import UnsupportedModelError

__all__ = ["open_session", "optimized", "run_batched"]

_FATAL_ONLY = 4  # what goes wrong is raised as well, and another level may do
# x86 processors without VNNI add up products of uint8 and int8 in 16 bits, which overflow; with this
# set they take a slower way to the right sum. With VNNI the same way takes twice the time for nothing.
# There are graphs for which ONNX Runtime has no kernels that way: those run unfused, in floats.
_NO_OVERFLOW = ("session.x64quantprecision", "1")
_EXACT = {"avx512_vnni", "avx_vnni"}
_CPUINFO = Path("/proc/cpuinfo")
_BLOCKING = "NchwcTransformer"
# By default x86 builds leave int8 activations in float; ARM builds fuse them.
_ARM_TRANSFORM = ("session.qdqisint8allowed", "1")
# Models and their shapes are their owner's business.
ort.disable_telemetry_events()


def open_session(
    model: onnx.ModelProto | Path | str, *, threads: int = 1, optimize: bool = True
) -> ort.InferenceSession:
    """Open a CPU session.

    Raises:
        UnsupportedModelError: If ONNX Runtime refuses the model; its reason is in the message.

    Examples:
        >>> import onnx
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
        >>> session = open_session(onnx.parser.parse_model(text))
        >>> session.run(None, {"x": np.array([-1], np.float32)})
        [array([0.], dtype=float32)]
    """
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    kinds = ort.GraphOptimizationLevel
    optimize = optimize and not _is_half_integer(model)
    levels = [kinds.ORT_ENABLE_ALL, kinds.ORT_ENABLE_BASIC] if optimize else [kinds.ORT_DISABLE_ALL]
    reasons = []
    for level in levels:
        options = _options(threads, level)
        try:
            return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            reasons.append(error)
    raise UnsupportedModelError(
        f"ONNX Runtime {ort.__version__} does not load the model: {str(reasons[0]).strip().splitlines()[0]}",
        "Export it for a supported opset, without custom operators.",
    ) from reasons[0]


def optimized(model: onnx.ModelProto, architecture: str, *, blocked: bool = True) -> onnx.ModelProto:
    """The graph as ONNX Runtime makes it before it runs.

    Args:
        model: Any graph.
        architecture: `aarch64` or `x86_64`: how integers are fused for it.
        blocked: Whether this machine's blocked layouts may be used, which other processors do not have.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]>
        ...     g (float[1] x) => (float[1] y) { a = Identity(x)  y = Relu(a) }'''
        >>> [node.op_type for node in optimized(onnx.parser.parse_model(text), "aarch64").graph.node]
        ['Relu']
    """
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    if architecture == "aarch64":
        options.add_session_config_entry(*_ARM_TRANSFORM)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        left_out = [] if blocked else [_BLOCKING]
        source = model.SerializeToString()
        ort.InferenceSession(source, options, providers=["CPUExecutionProvider"], disabled_optimizers=left_out)
        return onnx.load(path)


def _is_half_integer(model: onnx.ModelProto | Path | str) -> bool:
    """Whether Q/DQ pairs stand between float16 values.

    ONNX Runtime 1.32 optimizes such graphs wrongly on CPUs where a Clip stands before a pair: a MobileNetV2
    keeps 4 % of its answers, and 96 % as it stands. Their own runtime, TensorRT, is not concerned.
    """
    if not isinstance(model, onnx.ModelProto) and Path(model).suffix != ".onnx":
        return False  # ONNX Runtime's own format is optimized already
    loaded = model if isinstance(model, onnx.ModelProto) else onnx.load(model, load_external_data=False)
    scales = {node.input[1] for node in loaded.graph.node if node.op_type == "QuantizeLinear"}
    halves = {t.name for t in loaded.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
    return bool(scales & halves)


def _options(threads: int, level: ort.GraphOptimizationLevel) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    options.graph_optimization_level = level
    if level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL and not _adds_exactly():
        options.add_session_config_entry(*_NO_OVERFLOW)
    return options


@functools.cache
def _adds_exactly() -> bool:
    """Whether this processor is known to add up products of eight bits in 32 bits."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return False
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return bool(flags & _EXACT)


def run_batched(
    session: ort.InferenceSession,
    images: np.ndarray,
    *,
    output: str | None = None,
    batch: int | None = None,
) -> np.ndarray:
    """Run a session over images (N, ...) in pieces of `batch`; the last piece is padded.

    Args:
        session: A session with one input whose first axis is the batch.
        images: The images.
        output: Which output; the first by default.
        batch: Fixed batch of the graph; None runs all at once.

    Examples:
        >>> import onnx
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[2,1] x) => (float[2,1] y) { y = Neg(x) }'
        >>> session = open_session(onnx.parser.parse_model(text))
        >>> run_batched(session, np.array([[1], [2], [3]], np.float32), batch=2)
        array([[-1.],
               [-2.],
               [-3.]], dtype=float32)
    """
    feed = session.get_inputs()[0].name
    names = [output or session.get_outputs()[0].name]
    if batch is None:
        return np.asarray(session.run(names, {feed: images})[0])
    results = []
    for start in range(0, len(images), batch):
        piece = images[start : start + batch]
        padded = np.concatenate([piece, np.repeat(piece[-1:], batch - len(piece), axis=0)])
        result = np.asarray(session.run(names, {feed: padded})[0])
        results.append(result.reshape(batch, -1)[: len(piece)])
    return np.concatenate(results)
