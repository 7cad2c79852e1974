"""Which channels to keep, and how those kept stand in for the others.

Interpolative decomposition (Chee et al., "Model Preserving Compression for Neural Networks", NeurIPS
2022): activations of a removed channel are predicted linearly from those kept, and the layers that
read it absorb the prediction into their weights. The channels to keep are the pivots of a Cholesky
factorization of the activations' covariance, each weighted by what its readers make of it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from edgedafl.graph.channels import ChannelMap, Reader
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.portable import IMAGE

__all__ = ["Moments", "absorb", "choose", "observe"]

_ROWS = 20_000
_RIDGE = 1e-4


class Moments:
    """Second moments of what one layer reads, unit by unit.

    Attributes:
        units: Units in order (U,).
        order: Places of the layer's input by unit and occurrence (U, occurrences).
        gram: Sum of products of units and a constant 1, divided by the rows (U + 1, U + 1).
    """

    def __init__(self, reader: Reader) -> None:
        self.units, counts = np.unique(reader.weight.units, return_counts=True)
        self.regular = len(set(counts.tolist())) == 1
        places = np.argsort(reader.weight.units, kind="stable")
        self.order = places.reshape(len(self.units), -1) if self.regular else places[:, None]
        self.axis = reader.axis
        self.gram = np.zeros((len(self.units) + 1,) * 2)
        self._rows = 0

    def add(self, value: Tensor, limit: int) -> None:
        """Take in values of a batch of images, `limit` rows of them at most."""
        x = value.movedim(self.axis, -1).reshape(-1, value.shape[self.axis])
        x = x[:, torch.from_numpy(self.order)].transpose(1, 2).reshape(-1, len(self.units))
        if len(x) > limit:
            x = x[torch.linspace(0, len(x) - 1, limit).long()]
        rows = np.concatenate([x.double().numpy(), np.ones((len(x), 1))], 1)
        self.gram += rows.T @ rows
        self._rows += len(rows)

    @property
    def covariance(self) -> np.ndarray:
        """Of the units (U, U)."""
        mean = self.gram[-1, :-1] / self._rows
        found: np.ndarray = self.gram[:-1, :-1] / self._rows - np.outer(mean, mean)
        return found


def observe(model: onnx.ModelProto, channels: ChannelMap, batches: Iterable[Tensor]) -> list[Moments | None]:
    """Moments of every reader's input over images (N,C,H,W); None where units repeat unevenly."""
    module = OnnxModule(model, keep=[reader.input for reader in channels.readers])
    found = [Moments(reader) for reader in channels.readers]
    batches = list(batches)
    with torch.no_grad():
        for batch in batches:
            values = module.run({IMAGE: batch})
            for reader, moments in zip(channels.readers, found, strict=True):
                if moments.regular:
                    moments.add(values[reader.input], _ROWS // len(batches))
    return [moments if moments.regular else None for moments in found]


def choose(model: onnx.ModelProto, channels: ChannelMap, moments: list[Moments | None], counts: list[int]) -> set[int]:
    """Units to remove so that every group keeps its count."""
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    removed: set[int] = set()
    for group, count in zip(channels.groups, counts, strict=True):
        total = np.zeros((len(group),) * 2)
        for reader, own in zip(channels.readers, moments, strict=True):
            if own is None:
                continue
            shared = np.isin(group, own.units)
            if not shared.any():
                continue
            places = np.searchsorted(own.units, group[shared])
            weight = _by_unit(arrays[reader.weight.initializer], reader, own)
            norms = np.sqrt(np.square(weight).sum((1, 2)))[places]
            part = own.covariance[np.ix_(places, places)] * np.outer(norms, norms)
            total[np.ix_(shared, shared)] += part / max(np.trace(part), 1e-30)
        kept = _pivots(total, count)
        removed |= set(np.delete(group, kept).tolist())
    return removed


def _pivots(covariance: np.ndarray, count: int) -> list[int]:
    """Rows that explain most of the others, one after the other (pivoted Cholesky)."""
    rest = covariance.copy()
    chosen: list[int] = []
    for _ in range(count):
        # What a row explains of all rows, not only its own variance.
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.square(rest).sum(0) / np.diag(rest)
        gain[~np.isfinite(gain)] = -1.0
        gain[np.diag(rest) <= 1e-12 * max(np.trace(covariance), 1e-30)] = 0.0
        gain[chosen] = -2.0
        best = int(gain.argmax())
        chosen.append(best)
        if rest[best, best] > 0:
            rest = rest - np.outer(rest[:, best], rest[best]) / rest[best, best]
    return sorted(chosen)


def absorb(
    model: onnx.ModelProto, channels: ChannelMap, moments: list[Moments | None], removed: set[int]
) -> onnx.ModelProto:
    """The graph with the removed units' part moved onto those kept, in every layer that reads them."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    stored = {t.name: t for t in changed.graph.initializer}
    for reader, own in zip(channels.readers, moments, strict=True):
        if own is None:
            continue
        gone = np.array([unit in removed for unit in own.units.tolist()], bool)
        if not gone.any() or gone.all():
            continue
        mixing, constant = _prediction(own.gram, gone, intercept=reader.bias is not None)
        tensor = stored[reader.weight.initializer]
        array = numpy_helper.to_array(tensor).astype(np.float64)
        weight = _by_unit(array, reader, own)
        moved = np.einsum("kr,rop->kop", mixing, weight[gone])
        flat = np.moveaxis(array, (reader.weight.axis, reader.written), (0, 1)).copy()
        flat[own.order[~gone].reshape(-1)] += moved.reshape(-1, *flat.shape[1:])
        array = np.moveaxis(flat, (0, 1), (reader.weight.axis, reader.written))
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array.astype(np.float32)), tensor.name))
        if reader.bias is not None:
            outputs = numpy_helper.to_array(stored[reader.bias]).shape[0]
            shift = np.einsum("r,rop->op", constant, weight[gone]).reshape(-1, outputs, *flat.shape[2:])
            shift = shift.sum(tuple(i for i in range(shift.ndim) if i != 1))
            bias = numpy_helper.to_array(stored[reader.bias]) + shift
            stored[reader.bias].CopyFrom(numpy_helper.from_array(bias.astype(np.float32), reader.bias))
    return changed


def _by_unit(array: np.ndarray, reader: Reader, own: Moments) -> np.ndarray:
    """A weight as (U, occurrences, all else)."""
    flat = np.moveaxis(array, (reader.weight.axis, reader.written), (0, 1))
    found: np.ndarray = flat.reshape(len(flat), -1)[own.order]
    return found


def _prediction(gram: np.ndarray, gone: np.ndarray, *, intercept: bool) -> tuple[np.ndarray, np.ndarray]:
    """Linear map from kept units (and 1) to removed ones: (kept, removed) and (removed,)."""
    kept = np.append(~gone, intercept)
    left = gram[np.ix_(kept, kept)]
    right = gram[np.ix_(kept, np.append(gone, False))]
    scale = np.sqrt(np.maximum(np.diag(left), 1e-30))
    scaled = left / np.outer(scale, scale) + _RIDGE * np.eye(len(left))
    found = np.linalg.solve(scaled, right / scale[:, None]) / scale[:, None]
    return (found[:-1], found[-1]) if intercept else (found, np.zeros(int(gone.sum())))
