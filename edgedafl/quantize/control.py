"""Accuracy control: the layers that suffer most stay float until the drop holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import torch

from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.pruning import layer_of
from edgedafl.quantize.fidelity import Fidelity, ModelComparer
from edgedafl.quantize.ptq import quantize_graph
from edgedafl.quantize.ranges import Activation, Range, ranges_of
from edgedafl.targets import QuantizationScheme

__all__ = ["Controlled", "KeptLayer", "keep_worst_layers", "layer_sensitivities"]

_ROWS, _NUMBERS = 20_000, 15_000_000  # positions of a layer, and what is read there
_IMAGES = 16  # every layer's error is a mean over thousands of positions
_LOST = 4.0  # a channel that is nothing but error
_LEVELS = 255
_WEIGHT_LEVELS = 127


@dataclass(frozen=True)
class KeptLayer:
    """A weighted layer that stays float.

    Attributes:
        node: Its node's name.
        sensitivity: Error of its outputs in integers, as a share of each channel's variance.
        agreement: With the teacher once all of these stay float, in [0, 1].
    """

    node: str
    sensitivity: float
    agreement: float


@dataclass(frozen=True)
class Controlled:
    """A model of mixed precision.

    Attributes:
        model: The graph.
        fidelity: Of it.
        kept: What stays float, worst first.
        holds: Whether the drop holds.
    """

    model: onnx.ModelProto
    fidelity: Fidelity
    kept: tuple[KeptLayer, ...]
    holds: bool


def layer_sensitivities(
    model: onnx.ModelProto,
    scheme: QuantizationScheme,
    activations: Mapping[str, Activation],
    images: np.ndarray,
    method: str,
) -> dict[str, float]:
    """Error of every weighted layer's output when it alone runs in integers, by node name.

    One pass for all layers: each is compared on its own inputs.

    Examples:
        >>> import onnx
        >>> from edgedafl.quantize import observe_activations
        >>> from edgedafl.targets import find_target
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,1,2,2] x) => (float[1,2,2,2] y)
        ...     <float[2,1,1,1] w = {2, 3}, float[2] b = {0, 0}> { [head] y = Conv(x, w, b) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> images = np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 1, 2, 2)
        >>> seen, scheme = observe_activations(model, images), find_target("rpi4").scheme
        >>> {name: error < 0.01 for name, error in layer_sensitivities(model, scheme, seen, images, "min-max").items()}
        {'head': True}
    """
    ranges = ranges_of(dict(activations), method, symmetric=scheme.symmetric_activations)
    plain = OnnxModule(model)
    found = {}
    with torch.no_grad():
        walk_of = plain.walk({model.graph.input[0].name: torch.from_numpy(images[:_IMAGES])})
        for walk in walk_of:
            layer = layer_of(walk.node, plain)
            given = walk.values.get(walk.node.input[0]) if layer is not None else None
            walk.run()
            if layer is None or given is None or walk.node.name in found:
                continue
            wanted = walk.values[walk.node.output[0]]
            span = ranges.get(walk.node.input[0])
            rounded = given if span is None else _rounded(given, span)
            most = int(min(_ROWS, _NUMBERS / (layer.groups * layer.columns)))
            rows, [outputs] = layer.rows(rounded, [wanted], most, torch.Generator().manual_seed(0))
            weight = layer.read(plain)
            step = weight[..., :-1].abs().amax(2, keepdim=True).clamp_min(1e-12) / _WEIGHT_LEVELS
            integer = torch.cat([(weight[..., :-1] / step).round() * step, weight[..., -1:]], 2)
            made = rows @ integer.transpose(1, 2)
            spread = ranges.get(walk.node.output[0]) if scheme.outputs else None
            made = made if spread is None else _rounded(made, spread)
            # Channel by channel: a loud one must not hide what a quiet one loses.
            error = (made - outputs).square().mean(1) / outputs.var(1).clamp_min(1e-9)
            found[walk.node.name] = float(error.clamp_max(_LOST).mean())
    return found


def _rounded(values: torch.Tensor, span: Range) -> torch.Tensor:
    step = max(span.high - span.low, 1e-12) / _LEVELS
    return (values.clamp(span.low, span.high) / step).round() * step


def keep_worst_layers(
    model: onnx.ModelProto,
    scheme: QuantizationScheme,
    activations: Mapping[str, Activation],
    images: np.ndarray,
    method: str,
    judge: ModelComparer,
    holds: Callable[[Fidelity], bool],
) -> Controlled:
    """Take layers out of the integers, worst first, until `holds` is satisfied or none is left.

    Counts are doubled until one holds, then halved in between: a few models are judged, not one per layer.

    Args:
        model: Float32 graph at batch 1.
        scheme: The target's integer scheme.
        activations: Of this graph on calibration images.
        images: Calibration images in model space.
        method: Calibration method.
        judge: By which agreement is measured.
        holds: Says whether a model is near enough.

    Examples:
        >>> from edgedafl.export.student_onnx import student_to_onnx
        >>> from edgedafl.graph.edit import fix_batch
        >>> from edgedafl.preprocess import Preprocess
        >>> from edgedafl.quantize import CalibrationSet, observe_activations
        >>> from edgedafl.students import build_student
        >>> from edgedafl.targets import find_target
        >>> model = fix_batch(student_to_onnx(build_student("lenet5-half", (1, 28, 28), 10).module, (1, 28, 28)), 1)
        >>> pixels = np.random.default_rng(0).integers(0, 256, (32, 1, 28, 28), dtype=np.uint8)
        >>> own = CalibrationSet(pixels, pixels, np.zeros(32, np.int64), Preprocess.from_range(0.0, 1.0, channels=1))
        >>> images, scheme = own.probe_images(), find_target("rpi4").scheme
        >>> seen, judge = observe_activations(model, images), ModelComparer(model, own)
        >>> found = keep_worst_layers(model, scheme, seen, images, "min-max", judge, lambda fidelity: True)
        >>> found.holds, len(found.kept)
        (True, 1)
    """
    sensitivities = layer_sensitivities(model, scheme, activations, images, method)
    worst = sorted(sensitivities, key=lambda node: -sensitivities[node])
    tried: dict[int, tuple[onnx.ModelProto, Fidelity]] = {}

    def attempt(count: int) -> bool:
        if count not in tried:
            candidate = quantize_graph(model, scheme, activations, method, exclude=worst[:count])
            tried[count] = candidate, judge.of(candidate)
        return holds(tried[count][1])

    low, high = 0, 1
    while high < len(worst) and not attempt(high):
        low, high = high, min(2 * high, len(worst))
    held = attempt(high)
    while held and high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if attempt(middle) else (middle, high)
    candidate, fidelity = tried[high]
    kept = tuple(KeptLayer(node, sensitivities[node], fidelity.agreement) for node in worst[:high])
    return Controlled(candidate, fidelity, kept, held)
