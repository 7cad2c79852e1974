"""A device's own latency model, fitted to small networks that were measured on it.

A network's time is a constant, a share per element of the image, and for each layer an overhead
plus its work times a rate. The rate is a power law of channels and pixels, per kind of layer: that
is how kernels gain on wide layers and lose on narrow ones. All is fitted at once to the logarithm
of whole networks' times, with a pull towards plain values where the networks say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgedafl.latency.estimator.published import Prediction
from edgedafl.latency.estimator.work import CostedLayer

__all__ = ["DeviceFit", "DeviceModel", "Measured", "fit_model"]

_KINDS = ("conv3x3", "conv", "pointwise", "depthwise", "grouped", "linear", "pool", "add")
# Where a fit begins: units of work per second (multiply-accumulates; elements for the last two),
# and seconds. Spreads say how far, in logarithms, a device may lie from there.
_RATES = (6e10, 4e10, 4e10, 1e10, 1e10, 2e10, 2e9, 4e9)
_LAYER_SECONDS, _CALL_SECONDS, _ELEMENT_SECONDS = 1.5e-6, 3e-6, 1e-10
_SPREADS = np.array([0.5, 1.5, 0.4, 0.4, 0.4, 0.5, 0.5])
_CALL_SPREADS = np.array([1.0, 2.0])
_NOISE = 0.05  # of a network's measured time, and of what the model leaves out
_BLOCK = 16  # channels that vector units take at once
_FEW = 4  # channels of images, which runtimes treat apart
_PIXELS = 256
_PER_KIND = len(_SPREADS)
_HUBER = 0.2
_STEPS = 60
_FOLDS = 8
_LEAST_BAND = 1.1


class _SizedLayer(CostedLayer, Protocol):
    """A layer whose reading, writing and channels are known."""

    @property
    def inputs(self) -> int:
        """Elements read."""

    @property
    def outputs(self) -> int:
        """Elements written."""

    @property
    def channels(self) -> tuple[int, int]:
        """Channels in and out."""


@dataclass(frozen=True)
class Measured:
    """One network that was timed on the device.

    Attributes:
        name: Which.
        layers: Its layers.
        seconds: Median per image.
    """

    name: str
    layers: Sequence[Any]
    seconds: float


@dataclass(frozen=True)
class DeviceFit:
    """Of one precision.

    Attributes:
        coefficients: Logarithms: call and image element, then seven per kind of layer.
        band: Nine of ten networks left out of the fit lay within this factor.
        median_error: Of networks left out, as a share.
        rows: Networks it was fitted to.
    """

    coefficients: tuple[float, ...]
    band: float
    median_error: float
    rows: int


@dataclass(frozen=True)
class DeviceModel:
    """What is known of one device's speed.

    Attributes:
        device: As the user named it.
        target: Whose runtime and integer scheme it was measured with.
        threads: Threads of the networks.
        fits: By precision.
        fingerprint: What the device was when it was measured.
        invalid: What was wrong with the measurement, if anything.
    """

    device: str
    target: str
    threads: int
    fits: dict[str, DeviceFit]
    fingerprint: dict[str, str]
    invalid: tuple[str, ...] = ()

    def predict(self, layers: Sequence[Any], precision: str) -> Prediction:
        """Estimate one network."""
        fit = self.fits[precision]
        seconds = _seconds(np.array(fit.coefficients), _Work.of(layers)).total
        return Prediction(seconds, fit.band, "A", f"{fit.rows} networks measured on this device")

    def to_dict(self) -> dict[str, Any]:
        """A JSON form."""
        fits = {
            precision: {**vars(fit), "coefficients": list(fit.coefficients)} for precision, fit in self.fits.items()
        }
        return {**vars(self), "fits": fits, "invalid": list(self.invalid), "schema": 1}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DeviceModel:
        """From `to_dict`'s form.

        Raises:
            ValueError: If it is of another schema.
        """
        if data.get("schema") != 1:
            raise ValueError(f"schema {data.get('schema')!r}, expected 1")
        fits = {p: DeviceFit(**{**f, "coefficients": tuple(f["coefficients"])}) for p, f in data["fits"].items()}
        named = ("device", "target", "threads", "fingerprint")
        return cls(**{name: data[name] for name in named}, fits=fits, invalid=tuple(data["invalid"]))


def fit_model(networks: Sequence[Measured]) -> DeviceFit:
    """Fit one precision; judge by leaving out an eighth of the networks at a time.

    Raises:
        ValueError: If there are fewer than sixteen networks.

    Examples:
        >>> from edgedafl.module_cost import LayerSize
        >>> sizes = [1_000 * 2**step for step in range(16)]
        >>> networks = [Measured(f"n{n}", [LayerSize("conv3x3", n, 27, n, n, (3, 8))], n * 1e-9) for n in sizes]
        >>> fit_model(networks).median_error < 0.1
        True
    """
    if len(networks) < 2 * _FOLDS:
        raise ValueError(f"{len(networks)} networks, at least {2 * _FOLDS} are needed")
    works = [_Work.of(network.layers) for network in networks]
    seconds = np.array([network.seconds for network in networks])
    ratios = np.empty(len(networks))
    folds = np.random.default_rng(0).permutation(len(networks)) % _FOLDS
    for fold in range(_FOLDS):
        out = folds == fold
        theta = _solve([w for w, left in zip(works, out, strict=True) if not left], seconds[~out])
        ratios[out] = [_seconds(theta, w).total for w, left in zip(works, out, strict=True) if left] / seconds[out]
    return DeviceFit(
        coefficients=tuple(_solve(works, seconds).tolist()),
        band=max(_LEAST_BAND, float(np.quantile(np.maximum(ratios, 1 / ratios), 0.9))),
        median_error=float(np.median(np.abs(ratios - 1))),
        rows=len(networks),
    )


@dataclass(frozen=True)
class _Work:
    """A network's layers as arrays: kind, units of work, and what the rate depends on."""

    kinds: np.ndarray
    units: np.ndarray
    factors: np.ndarray
    image: int

    @classmethod
    def of(cls, layers: Sequence[_SizedLayer]) -> _Work:
        kinds = np.array([_KINDS.index(layer.kind) for layer in layers])
        units = np.array([float(layer.macs or layer.elements) for layer in layers])
        factors = np.array([_factors(layer) for layer in layers])
        return cls(kinds, units, factors, layers[0].inputs)


def _factors(layer: _SizedLayer) -> list[float]:
    given, made = layer.channels
    pixels = 1.0 if layer.kind == "linear" else layer.outputs / made
    odd = (given > _FEW and given % _BLOCK) or made % _BLOCK
    logarithms = [math.log(given / _BLOCK), math.log(made / _BLOCK), math.log(pixels / _PIXELS)]
    return [1.0, *logarithms, float(given <= _FEW), float(bool(odd))]


@dataclass(frozen=True)
class _Seconds:
    total: float
    gradient: np.ndarray  # of the logarithm of the total


def _seconds(theta: np.ndarray, work: _Work) -> _Seconds:
    call, image = np.exp(theta[0]), work.image * np.exp(theta[1])
    table = theta[2:].reshape(len(_KINDS), _PER_KIND)[work.kinds]
    overhead = np.exp(table[:, 0])
    main = work.units * np.exp((work.factors * table[:, 1:]).sum(1))
    gradient = np.zeros((len(_KINDS), _PER_KIND))
    np.add.at(gradient, work.kinds, np.c_[overhead, main[:, None] * work.factors])
    total = float(call + image + overhead.sum() + main.sum())
    return _Seconds(total, np.r_[call, image, gradient.ravel()] / total)


def _start() -> np.ndarray:
    """Coefficients of no device in particular."""
    table = np.zeros((len(_KINDS), _PER_KIND))
    table[:, 0] = math.log(_LAYER_SECONDS)
    table[:, 1] = -np.log(_RATES)
    start: np.ndarray = np.r_[math.log(_CALL_SECONDS), math.log(_ELEMENT_SECONDS), table.ravel()]
    return start


def _solve(works: Sequence[_Work], seconds: np.ndarray) -> np.ndarray:
    """Levenberg-Marquardt steps with Huber's loss."""
    start = theta = _start()
    pull = (_NOISE / np.r_[_CALL_SPREADS, np.tile(_SPREADS, len(_KINDS))]) ** 2
    target, damping = np.log(seconds), 1e-3

    def cost(at: np.ndarray) -> float:
        off = np.abs(np.log([_seconds(at, work).total for work in works]) - target)
        near = np.minimum(off, _HUBER)
        return float((near * (2 * off - near)).sum() + (pull * (at - start) ** 2).sum())

    lowest = cost(theta)
    for _ in range(_STEPS):
        found = [_seconds(theta, work) for work in works]
        residual = np.log([f.total for f in found]) - target
        jacobian = np.array([f.gradient for f in found])
        trust = np.minimum(1, _HUBER / np.maximum(np.abs(residual), 1e-9))
        curvature = jacobian.T @ (jacobian * trust[:, None]) + np.diag(pull)
        gradient = jacobian.T @ (trust * residual) + pull * (theta - start)
        while damping < 1e3:
            candidate = theta - np.linalg.solve(curvature + damping * np.eye(len(theta)), gradient)
            reached = cost(candidate)
            if reached <= lowest:
                break
            damping *= 4
        else:
            break
        gained, theta, lowest = lowest - reached, candidate, reached
        if gained < 1e-7:
            break
        damping = max(damping / 3, 1e-6)
    return np.asarray(theta)
