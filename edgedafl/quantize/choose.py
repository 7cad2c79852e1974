"""From a float student to the integer one that loses least, within an allowed drop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from edgedafl.graph.edit import fix_batch
from edgedafl.graph.packed import ALL_BITS, largest_integer
from edgedafl.graph.peak_memory import peak_memory
from edgedafl.quantize.allocation import allocate_bits
from edgedafl.quantize.calibration import CalibrationSet
from edgedafl.quantize.control import KeptLayer, keep_worst_layers
from edgedafl.quantize.equalization import FEWEST_BITS, equalized
from edgedafl.quantize.fidelity import Fidelity, ModelComparer
from edgedafl.quantize.ptq import METHODS, integer_readers, quantize_graph, with_remainder
from edgedafl.quantize.qat import QAT_SECONDS, train_quantized
from edgedafl.quantize.ranges import Activation, observe_activations, ranges_of
from edgedafl.quantize.rounding import ROUNDING_IMAGES, Rounded, round_weights
from edgedafl.targets import QuantizationScheme

__all__ = ["Quantized", "integer_model", "quantize_model"]

_CAUTIOUS = METHODS[0]
_CLEARLY = 0.01  # some two standard errors of the difference on two thousand probes
# Quantization-aware training pays from this many steps on; slow networks do not get so far in its time.
_LEAST_STEPS = 100
_PASSES_PER_STEP = 3 * 64  # forward and backward pass of a batch, in images
# What the float and the rounded network may make of their images at once: 23 images of 16 MB each.
_BYTES = 750_000_000


@dataclass(frozen=True)
class Quantized:
    """An int8 model and how it was come by.

    Attributes:
        model: The graph, batch 1.
        method: Calibration method.
        fidelity: Agreement with the teacher and distance from the float scores, on the probes.
        float_agreement: The float model's agreement, in [0, 1].
        tried: Agreement of everything tried, by name.
        trained: Whether its weights went through quantization-aware training.
        kept: Layers that stay float, worst first.
        holds: Whether the allowed drop holds; True where none was given.
        calibration: Digest of the calibration set.
    """

    model: onnx.ModelProto
    method: str
    fidelity: Fidelity
    float_agreement: float
    tried: dict[str, float]
    trained: bool = False
    kept: tuple[KeptLayer, ...] = ()
    holds: bool = True
    calibration: str = ""

    @property
    def agreement(self) -> float:
        """Of the int8 model, in [0, 1]."""
        return self.fidelity.agreement


def quantize_model(
    model: onnx.ModelProto,
    scheme: QuantizationScheme,
    calibration: CalibrationSet,
    *,
    max_drop: float | None = None,
    enough: Callable[[onnx.ModelProto], bool] | None = None,
    trained: bool = True,
    seconds: float = QAT_SECONDS,
    judge: ModelComparer | None = None,
    weight_bits: float = ALL_BITS,
) -> Quantized:
    """Quantize by the cautious calibration method, or by another where that one loses too much and another does not.

    Where the best loses more than `max_drop`, its weights go through quantization-aware training, if the time suffices
    for that. Where that does not hold either, the worst layers stay float, unless the model is `enough`. Where fewer
    than eight bits are asked for it is neither: training of a minute mends none of it (docs/experiments.md), and a
    layer in float takes many times the bytes that they save.

    Args:
        model: The float32 student with a free batch.
        scheme: The target's integer scheme.
        calibration: Generated images.
        max_drop: Agreement that may be lost against the float model, in [0, 1]; None for any.
        enough: Whether a model is faithful enough though it loses more than that.
        trained: Whether the student was trained; otherwise quantization-aware training is used only where needed.
        seconds: For quantization-aware training.
        judge: Compares with the float student at batch 1, where that has answered already.
        weight_bits: Mean bits of a weight in the file, 3.5 to 8 (see `allocation` and `graph.packed`).

    Examples:
        >>> from edgedafl.export.student_onnx import student_to_onnx
        >>> from edgedafl.preprocess import Preprocess
        >>> from edgedafl.students import build_student
        >>> from edgedafl.targets import find_target
        >>> model = student_to_onnx(build_student("lenet5-half", (1, 28, 28), 10).module, (1, 28, 28))
        >>> pixels = np.random.default_rng(0).integers(0, 256, (32, 1, 28, 28), dtype=np.uint8)
        >>> seen = CalibrationSet(pixels, pixels, np.zeros(32, np.int64), Preprocess.from_range(0.0, 1.0, channels=1))
        >>> quantize_model(model, find_target("rpi4").scheme, seen, trained=False).method
        'robust'
    """
    # Float16 beside integers runs slowly on CPUs, and changes hardly an answer: models are compared without.
    plain = replace(scheme, remainder="float32")
    fixed = fix_batch(model, 1)
    judge = judge or ModelComparer(fixed, calibration)
    found = _chosen(fixed, plain, calibration, judge, max_drop, enough, seconds, weight_bits, patient=trained)
    return replace(found, model=with_remainder(found.model, scheme))


def _chosen(
    fixed: onnx.ModelProto,
    scheme: QuantizationScheme,
    calibration: CalibrationSet,
    judge: ModelComparer,
    max_drop: float | None,
    enough: Callable[[onnx.ModelProto], bool] | None,
    seconds: float,
    weight_bits: float,
    *,
    patient: bool,
) -> Quantized:
    images, rounding = calibration.images(), calibration.rounding_images(ROUNDING_IMAGES)
    fixed = _evened(fixed, images, weight_bits)
    activations = observe_activations(fixed, images)
    rounded = _rounded(fixed, scheme, activations, rounding, weight_bits)

    def holds(fidelity: Fidelity) -> bool:
        return max_drop is None or judge.reference - fidelity.agreement <= max_drop + 1e-9

    best = _best_method(rounded, scheme, activations, calibration, judge, holds)

    if holds(best.fidelity):
        return best
    if weight_bits < ALL_BITS or (not patient and enough is not None and enough(best.model)):
        return replace(best, holds=False)
    source, seen = fixed, activations
    rows_within_budget = seconds / max(judge.seconds_per_image * _PASSES_PER_STEP, 1e-9)
    if len(calibration.training_pixels) and rows_within_budget >= _LEAST_STEPS:
        trained = train_quantized(
            fixed, scheme, calibration, activations, best.method, seconds=seconds, least=_LEAST_STEPS
        )
        if trained is not None:
            after = observe_activations(trained, images)
            again = _rounded(trained, scheme, after, rounding)
            candidate = quantize_graph(again.model, scheme, after, best.method, steps=again.steps)
            fidelity = judge.of(candidate)
            best = replace(best, tried={**best.tried, f"{best.method}, trained": fidelity.agreement})
            if fidelity.rank > best.fidelity.rank:
                best, source, seen = replace(best, model=candidate, fidelity=fidelity, trained=True), trained, after
        if holds(best.fidelity):
            return best
    if enough is not None and enough(best.model):
        return replace(best, holds=False)
    mixed = keep_worst_layers(source, scheme, seen, images, best.method, judge, holds)
    tried = {**best.tried, f"{best.method}, {len(mixed.kept)} layers float": mixed.fidelity.agreement}
    if not mixed.holds:  # not even the float weights hold: integers are not to blame
        return replace(best, tried=tried, holds=False)
    return replace(best, model=mixed.model, fidelity=mixed.fidelity, tried=tried, kept=mixed.kept)


def integer_model(
    model: onnx.ModelProto,
    scheme: QuantizationScheme,
    images: np.ndarray,
    rounding: np.ndarray,
    weight_bits: float = ALL_BITS,
) -> onnx.ModelProto:
    """A model in integers by the cautious method, without a look at what the others give.

    Args:
        model: Float32 graph at batch 1.
        scheme: The target's integer scheme.
        images: To take ranges from, float32 (N,C,H,W) in model space.
        rounding: To round weights by, likewise.
        weight_bits: Mean bits of a weight in the file, 3.5 to 8.

    Examples:
        >>> from edgedafl.targets import find_target
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,1,2,2] x) => (float[1,1,2,2] y)
        ...     <float[1,1,1,1] w = {2}, float[1] b = {0}> { a = Conv(x, w, b)  y = Relu(a) }'''
        >>> images = np.random.default_rng(0).normal(size=(8, 1, 2, 2)).astype(np.float32)
        >>> found = integer_model(onnx.parser.parse_model(text), find_target("rpi4").scheme, images, images)
        >>> sum(node.op_type == "QuantizeLinear" for node in found.graph.node) > 0
        True
    """
    model = _evened(model, images, weight_bits)
    activations = observe_activations(model, images)
    rounded = _rounded(model, scheme, activations, rounding, weight_bits)
    return quantize_graph(rounded.model, scheme, activations, _CAUTIOUS, steps=rounded.steps)


def _evened(model: onnx.ModelProto, images: np.ndarray, weight_bits: float) -> onnx.ModelProto:
    """The model with channels of like size, where its weights have the bits to spare for it."""
    return equalized(model, images) if weight_bits >= FEWEST_BITS else model


def _rounded(
    model: onnx.ModelProto,
    scheme: QuantizationScheme,
    activations: Mapping[str, Activation],
    rounding: np.ndarray,
    weight_bits: float = ALL_BITS,
) -> Rounded:
    """Weights on their grid, and biases that make up for it."""
    most = max(1, min(ROUNDING_IMAGES, _BYTES // (2 * peak_memory(model, fused=False).peak)))
    symmetric = scheme.symmetric_activations
    ranges = ranges_of(dict(activations), _CAUTIOUS, symmetric=symmetric)
    bits = {} if weight_bits == ALL_BITS else allocate_bits(model, rounding, weight_bits, nibbles=scheme.nibbles)
    largest = {name: largest_integer(own) for name, own in bits.items()}
    return round_weights(model, rounding[:most], ranges, integer_readers(scheme), symmetric=symmetric, largest=largest)


def _best_method(
    rounded: Rounded,
    scheme: QuantizationScheme,
    activations: Mapping[str, Activation],
    calibration: CalibrationSet,
    judge: ModelComparer,
    holds: Callable[[Fidelity], bool],
) -> Quantized:
    candidates, found = {}, {}
    for method in METHODS:
        candidates[method] = quantize_graph(rounded.model, scheme, activations, method, steps=rounded.steps)
        found[method] = judge.of(candidates[method])
        if method == _CAUTIOUS and holds(found[method]) and found[method].agreement > judge.reference - _CLEARLY:
            break  # none of the others could be clearly better
    best = max(found, key=lambda method: found[method].rank)
    # The others clip more or less than real images ask for: they have to be clearly better to be preferred.
    if found[best].agreement < found[_CAUTIOUS].agreement + _CLEARLY:
        best = _CAUTIOUS
    return Quantized(
        model=candidates[best],
        method=best,
        fidelity=found[best],
        float_agreement=judge.reference,
        tried={method: fidelity.agreement for method, fidelity in found.items()},
        calibration=calibration.digest,
    )
