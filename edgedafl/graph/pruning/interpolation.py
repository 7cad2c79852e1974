"""Which channels to keep, and how those kept stand in for the others.

Interpolative decomposition (Chee et al., "Model Preserving Compression for Neural Networks", NeurIPS
2022): activations of a removed channel are predicted linearly from those kept, and the layers that
read it fold the prediction into their weights. The channels to keep are the pivots of a Cholesky
factorization of the activations' covariance, each weighted by what its readers make of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from edgedafl.graph.canonicalize import IMAGE
from edgedafl.graph.edit import copy_of
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.pruning.channels import ChannelMap, Reader, are_kept

__all__ = ["Moments", "Ranking", "collect_moments", "fold_into_weights", "rank_channels"]

_ROWS = 20_000
_ROUNDS = 256
_RIDGE = 1e-4
_NOISE = 1e-6  # of products in float32, as a share of the trace


class Moments:
    """Second moments of what one layer reads, unit by unit.

    Args:
        reader: The layer.

    Attributes:
        units: Units in order (U,).
        order: Places of the layer's input by unit and occurrence (U, occurrences).
        regular: Whether all units occur equally often; otherwise only the first place counts, and
            nothing can be absorbed.
        gram: Sums of products of units and of a constant 1 (U + 1, U + 1).
    """

    def __init__(self, reader: Reader) -> None:
        self.units, first, counts = np.unique(reader.weight.units, return_index=True, return_counts=True)
        self.regular = len(set(counts.tolist())) == 1
        places = np.argsort(reader.weight.units, kind="stable")
        self.order = places.reshape(len(self.units), -1) if self.regular else first[:, None]
        self.gram = np.zeros((len(self.units) + 1,) * 2)
        self._axis = reader.axis

    def add(self, value: Tensor, limit: int) -> None:
        """Take in values of a batch of images, `limit` rows of them at most."""
        x = value.movedim(self._axis, -1).reshape(-1, value.shape[self._axis])
        most = max(1, limit // self.order.shape[1])
        if len(x) > most:
            x = x[torch.linspace(0, len(x) - 1, most).long()]
        x = x[:, torch.from_numpy(self.order)].transpose(1, 2).reshape(-1, len(self.units))
        rows = torch.cat([x, x.new_ones(len(x), 1)], 1)
        self.gram += (rows.T @ rows).double().numpy()

    @property
    def covariance(self) -> np.ndarray:
        """Of the units (U, U)."""
        rows = self.gram[-1, -1]
        mean = self.gram[-1, :-1] / rows
        found: np.ndarray = self.gram[:-1, :-1] / rows - np.outer(mean, mean)
        return found

    def by_unit(self, weight: np.ndarray, reader: Reader) -> np.ndarray:
        """A weight as (U, occurrences, all else)."""
        flat = np.moveaxis(weight, (reader.weight.axis, reader.written), (0, 1))
        found: np.ndarray = flat.reshape(len(flat), -1)[self.order]
        return found


@torch.no_grad()
def collect_moments(
    module: OnnxModule,
    channels: ChannelMap,
    batches: Sequence[Tensor],
    movements: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({}),
) -> list[Moments]:
    """Moments of what every reader reads.

    Args:
        module: The network.
        channels: Its channels.
        batches: Images (N,C,H,W) in model space; what one layer makes of a batch is in memory.
        movements: Of values to moments that are promised of real data, see `movements`.

    Examples:
        >>> import onnx
        >>> from edgedafl.graph.pruning import trace_channels
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,1,8,8] image) => (float[n,1,8,8] y)
        ...     <float[2,1,1,1] w = {1, 2}, float[1,2,1,1] v = {3, 4}> { a = Conv(image, w)  y = Conv(a, v) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> channels = trace_channels(model, {"image": (1, 1, 8, 8), "a": (1, 2, 8, 8), "y": (1, 1, 8, 8)})
        >>> network = OnnxModule(model, keep=[reader.input for reader in channels.readers])
        >>> [found.gram.shape for found in collect_moments(network, channels, [torch.ones(4, 1, 8, 8)])]
        [(3, 3)]
    """
    found = [Moments(reader) for reader in channels.readers]
    by_weight = {
        reader.weight.initializer: (reader, moments) for reader, moments in zip(channels.readers, found, strict=True)
    }
    for walk in (walk for batch in batches for walk in module.walk({IMAGE: batch})):
        node = walk.node
        for name in node.input:
            if name in by_weight and by_weight[name][0].input in walk.values:
                reader, moments = by_weight[name]
                moments.add(walk.values[reader.input], _ROWS // len(batches))
        walk.run()
        written = node.output[0]
        if written in movements:
            walk.values[written] = movements[written](walk.values[written])
    return found


@dataclass(frozen=True)
class Ranking:
    """The units of one group in the order in which they are best kept.

    Attributes:
        units: Those first that are best kept (U,).
        unexplained: What the first k units leave of all, as a share of the group's variance as its readers
            weigh it, for k = 0 to U (U + 1,).
    """

    units: np.ndarray
    unexplained: np.ndarray


def rank_channels(model: onnx.ModelProto, channels: ChannelMap, moments: Sequence[Moments]) -> tuple[Ranking, ...]:
    """Every group's units, those first that are best kept.

    Examples:
        >>> import onnx
        >>> from edgedafl.graph.pruning import trace_channels
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,1,8,8] image) => (float[n,1,8,8] y)
        ...     <float[2,1,1,1] w = {1, 9}, float[1,2,1,1] v = {3, 4}> { a = Conv(image, w)  y = Conv(a, v) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> channels = trace_channels(model, {"image": (1, 1, 8, 8), "a": (1, 2, 8, 8), "y": (1, 1, 8, 8)})
        >>> network = OnnxModule(model, keep=[reader.input for reader in channels.readers])
        >>> moments = collect_moments(network, channels, [torch.arange(256.0).reshape(4, 1, 8, 8)])
        >>> [ranking.units.tolist() for ranking in rank_channels(model, channels, moments)]
        [[1, 0]]
    """
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    ranked = []
    for group in channels.groups:
        total = np.zeros((len(group),) * 2)
        for reader, own in zip(channels.readers, moments, strict=True):
            shared = np.isin(group, own.units)
            if shared.any():
                part = _importance(arrays[reader.weight.initializer], reader, own, group[shared])
                total[np.ix_(shared, shared)] += part
        order, unexplained = _pivots(total)
        ranked.append(Ranking(group[order], unexplained))
    return tuple(ranked)


def _importance(weight: np.ndarray, reader: Reader, own: Moments, units: np.ndarray) -> np.ndarray:
    """Covariance of some units as one reader weighs them, with a trace of 1."""
    places = np.searchsorted(own.units, units)
    norms = np.sqrt(np.square(own.by_unit(weight, reader)).sum((1, 2)))[places]
    part = own.covariance[np.ix_(places, places)] * np.outer(norms, norms)
    found: np.ndarray = part / max(np.trace(part), 1e-30)
    return found


def _pivots(covariance: np.ndarray) -> tuple[list[int], np.ndarray]:
    """All rows, each explaining most of what those before it leave of all rows (pivoted Cholesky).

    Of many rows several are taken at a time.

    Returns:
        Their places, and the share of the trace that is left after each of them.
    """
    rest = covariance.copy()
    whole = max(np.trace(covariance), 1e-30)
    least = 1e-12 * whole
    together = -(-len(rest) // _ROUNDS)
    chosen: list[int] = []
    left = [1.0]
    while len(chosen) < len(rest):
        own = np.diag(rest)
        # What is left of a row that follows from others is rounding: divided by itself it would look large.
        gain = np.where(own > _NOISE * whole, np.square(rest).sum(0) / np.maximum(own, least), own)
        gain[chosen] = -1.0
        best = np.argsort(-gain, kind="stable")[: min(together, len(rest) - len(chosen))]
        chosen += best.tolist()
        taken = len(best)
        best = best[own[best] > least]
        block = rest[np.ix_(best, best)] + least * np.eye(len(best))
        rest = rest - rest[:, best] @ np.linalg.solve(block, rest[best])
        share = max(0.0, float(np.trace(rest)) / whole)
        left += np.linspace(left[-1], min(left[-1], share), taken + 1)[1:].tolist()
    return chosen, np.array(left)


def fold_into_weights(
    model: onnx.ModelProto, channels: ChannelMap, moments: Sequence[Moments], removed: Set[int]
) -> onnx.ModelProto:
    """The graph with the removed units' part moved onto those kept, in every layer that reads them.

    Examples:
        >>> import onnx
        >>> from edgedafl.graph.pruning import trace_channels
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,1,8,8] image) => (float[n,1,8,8] y)
        ...     <float[2,1,1,1] w = {1, 2}, float[1,2,1,1] v = {3, 4}> { a = Conv(image, w)  y = Conv(a, v) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> channels = trace_channels(model, {"image": (1, 1, 8, 8), "a": (1, 2, 8, 8), "y": (1, 1, 8, 8)})
        >>> network = OnnxModule(model, keep=[reader.input for reader in channels.readers])
        >>> moments = collect_moments(network, channels, [torch.arange(256.0).reshape(4, 1, 8, 8)])
        >>> folded = fold_into_weights(model, channels, moments, {0})  # channel 0 is half of channel 1: 4 + 3 / 2
        >>> onnx.numpy_helper.to_array(folded.graph.initializer[1]).round(1).ravel().tolist()
        [3.0, 5.5]
    """
    changed = copy_of(model)
    stored = {t.name: t for t in changed.graph.initializer}
    for reader, own in zip(channels.readers, moments, strict=True):
        gone = ~are_kept(own.units, removed)
        if not gone.any() or gone.all() or not own.regular:
            continue
        mixing, constant = _prediction(own.gram, gone, intercept=reader.bias is not None)
        tensor = stored[reader.weight.initializer]
        weight = numpy_helper.to_array(tensor).astype(np.float64)
        parts = own.by_unit(weight, reader)[gone]
        flat = np.moveaxis(weight, (reader.weight.axis, reader.written), (0, 1)).copy()
        moved = np.einsum("kr,rop->kop", mixing, parts)
        flat[own.order[~gone].reshape(-1)] += moved.reshape(-1, *flat.shape[1:])
        _store(tensor, np.moveaxis(flat, (0, 1), (reader.weight.axis, reader.written)))
        if reader.bias is not None:
            # What is constant in a removed unit reaches every output through all taps of its kernel.
            shift = np.einsum("r,rop->op", constant, parts).reshape(-1, *flat.shape[1:])
            shift = shift.sum(tuple(axis for axis in range(shift.ndim) if axis != 1))
            _store(stored[reader.bias], numpy_helper.to_array(stored[reader.bias]) + shift)
    return changed


def _store(tensor: onnx.TensorProto, value: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, np.float32, order="C"), tensor.name))


def _prediction(gram: np.ndarray, gone: np.ndarray, *, intercept: bool) -> tuple[np.ndarray, np.ndarray]:
    """Linear map from kept units (and 1) to removed ones: (kept, removed) and (removed,)."""
    kept = np.append(~gone, intercept)
    left = gram[np.ix_(kept, kept)]
    right = gram[np.ix_(kept, np.append(gone, False))]
    scale = np.sqrt(np.maximum(np.diag(left), 1e-30))
    scaled = left / np.outer(scale, scale) + _RIDGE * np.eye(len(left))
    found = np.linalg.solve(scaled, right / scale[:, None]) / scale[:, None]
    return (found[:-1], found[-1]) if intercept else (found, np.zeros(int(gone.sum())))
