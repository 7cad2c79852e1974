"""What an activation's integers span: ranges that hold on images nobody has seen.

Calibration images are synthetic. Some of them excite a layer many times more than any real image does,
and a range that covers them leaves few integers for real ones. So a range ends at two and a half times what
the median image reaches, unless no image goes so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from edgedafl.graph.edit import with_all_outputs
from edgedafl.graph.runtime import open_session

__all__ = ["Activation", "Range", "every_value", "least_error_range", "observe_activations", "ranges_of"]

_IMAGES = 128
_VALUES_PER_IMAGE = 2048
# Over eleven teachers, real images reach 1.2 to 2.3 times what their median image reaches. Factors of 1.5 to 3.5
# were tried: 2 clipped thin networks with gates and dense ones, 3 left networks of hard-swishes too few levels.
_HEADROOM = 2.5
# Clipping below a third of the range never paid in the literature; a step of 2 % is finer than a bit.
_SHRINKS = np.linspace(0.3, 1.0, 36)


@dataclass(frozen=True)
class Range:
    """What an activation's integers span, in its own unit."""

    low: float
    high: float


@dataclass(frozen=True)
class Activation:
    """One activation on calibration images.

    Attributes:
        lows: Smallest value per image, at most 0 (N,).
        highs: Largest value per image, at least 0 (N,).
        sample: Some of its values.
    """

    lows: np.ndarray
    highs: np.ndarray
    sample: np.ndarray


def every_value(model: onnx.ModelProto, images: np.ndarray, most: int) -> Iterator[dict[str, np.ndarray]]:
    """The image and what every node makes of it in floats, by name, image by image.

    Args:
        model: Float graph at batch 1.
        images: float32 (N,C,H,W) in model space.
        most: How many of them are run, evenly spread.

    Examples:
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1,2] x) => (float[1,2] y) { y = Relu(x) }'
        >>> [sorted(values) for values in every_value(onnx.parser.parse_model(text), np.ones((3, 2), np.float32), 2)]
        [['x', 'y'], ['x', 'y']]
    """
    session = open_session(with_all_outputs(model), threads=0, optimize=False)
    feed = session.get_inputs()[0].name
    names = [output.name for output in session.get_outputs() if output.type == "tensor(float)"]
    for image in images[:: max(1, -(-len(images) // most))]:
        made = session.run(names, {feed: image[None]})
        yield {feed: image[None]} | {name: np.asarray(value) for name, value in zip(names, made, strict=True)}


def observe_activations(model: onnx.ModelProto, images: np.ndarray) -> dict[str, Activation]:
    """Every float activation of a graph with batch 1, in one pass.

    Args:
        model: The float graph.
        images: float32 (N,C,H,W) in model space; at most 128 of them, evenly spread, are looked at.

    Examples:
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1,2] x) => (float[1,2] y) { y = Relu(x) }'
        >>> seen = observe_activations(onnx.parser.parse_model(text), np.array([[-1, 3], [0, 2]], np.float32))
        >>> sorted(seen)
        ['x', 'y']
    """
    random = np.random.default_rng(0)
    seen: dict[str, list[np.ndarray]] = {}
    extremes: dict[str, list[tuple[float, float]]] = {}
    for values in every_value(model, images, _IMAGES):
        for name, value in values.items():
            flat = value.reshape(-1)
            extremes.setdefault(name, []).append((float(flat.min(initial=0.0)), float(flat.max(initial=0.0))))
            if flat.size > _VALUES_PER_IMAGE:
                flat = flat[random.integers(0, flat.size, _VALUES_PER_IMAGE)]
            seen.setdefault(name, []).append(flat)
    found = {}
    for name, parts in seen.items():
        lows, highs = np.array(extremes[name]).T
        found[name] = Activation(lows, highs, np.concatenate(parts))
    return found


def ranges_of(
    activations: dict[str, Activation], method: str, *, levels: int = 256, symmetric: bool = False
) -> dict[str, Range]:
    """A range for every activation.

    Args:
        activations: See `observe_activations`.
        method: `robust` (at most two and a half times what the median image reaches), `min-max` (all that was seen) or
            `mse` (the clipping within the robust range that minimises the mean squared error).
        levels: Count of integer levels, 256 for eight bits.
        symmetric: Whether zero lies in the middle.

    Raises:
        KeyError: If there is no such method.

    Examples:
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1,2] x) => (float[1,2] y) { y = Relu(x) }'
        >>> seen = observe_activations(onnx.parser.parse_model(text), np.array([[-1, 3], [0, 2]], np.float32))
        >>> ranges_of(seen, "min-max")["x"]
        Range(low=-1.0, high=3.0)
    """
    choose = _METHODS[method]
    return {name: choose(activation, levels, symmetric) for name, activation in activations.items()}


def _whole(activation: Activation, levels: int, symmetric: bool) -> Range:
    return Range(float(activation.lows.min()), float(activation.highs.max()))


def _robust(activation: Activation, levels: int, symmetric: bool) -> Range:
    lows, highs = activation.lows, activation.highs
    # Where most images leave one side at zero its median says nothing.
    low = max(float(lows.min()), _HEADROOM * float(np.median(lows[lows < 0]))) if (lows < 0).any() else 0.0
    high = min(float(highs.max()), _HEADROOM * float(np.median(highs[highs > 0]))) if (highs > 0).any() else 0.0
    return Range(low, high)


def _least_error(activation: Activation, levels: int, symmetric: bool) -> Range:
    bounds = _robust(activation, levels, symmetric)
    values = np.clip(activation.sample, bounds.low, bounds.high)
    return least_error_range(np.append(values, [bounds.low, bounds.high]), levels=levels, symmetric=symmetric)


_METHODS: dict[str, Callable[[Activation, int, bool], Range]] = {
    "robust": _robust,
    "min-max": _whole,
    "mse": _least_error,
}


def least_error_range(values: np.ndarray, *, levels: int, symmetric: bool) -> Range:
    """Shrink the range of `values` until rounding and clipping together cost least.

    Args:
        values: A sample of the activation.
        levels: Count of integer levels.
        symmetric: Whether zero lies in the middle.

    Examples:
        >>> values = np.append(np.linspace(-1, 1, 9_999), 30.0).astype(np.float32)
        >>> found = least_error_range(values, levels=256, symmetric=False)
        >>> found.high < 30
        True
    """
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if symmetric:
        high = max(high, -low)
        low = -high
    if high == low:
        return Range(low, high)
    best, least = Range(low, high), np.inf
    for shrink in _SHRINKS:
        step = (high - low) * shrink / (levels - 1)
        rounded = np.clip(np.round(values / step) * step, low * shrink, high * shrink)
        error = float(np.mean((rounded - values) ** 2))
        if error < least:
            best, least = Range(low * float(shrink), high * float(shrink)), error
    return best
