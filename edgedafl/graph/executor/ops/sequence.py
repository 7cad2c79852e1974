"""Sequences of tensors, which unoptimised exports use for chunk and unbind. A sequence is a tuple."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgedafl.graph.executor.context import NodeContext, align, host, integers, op

__all__: list[str] = []


@op("SequenceConstruct")
def sequence_construct(context: NodeContext, *values: Any) -> list[Any]:
    return [tuple(align(*values))]


@op("SplitToSequence")
def split_to_sequence(context: NodeContext, x: Tensor, split: Any = None) -> list[Any]:
    """Pieces of one length, of listed lengths, or of length 1 (then the axis may be dropped)."""
    axis = context.get("axis", 0)
    if split is None:
        pieces = x.split(1, axis)
        return [pieces if context.get("keepdims", 1) else tuple(p.squeeze(axis) for p in pieces)]
    sizes = integers(split)
    return [tuple(x.split(sizes[0] if host(split).ndim == 0 else sizes, axis))]


@op("SequenceAt")
def sequence_at(context: NodeContext, sequence: tuple[Tensor, ...], position: Any) -> Tensor:
    return sequence[integers(position)[0]]


@op("SequenceLength")
def sequence_length(context: NodeContext, sequence: tuple[Tensor, ...]) -> np.ndarray:
    return np.array(len(sequence), np.int64)


@op("ConcatFromSequence")
def concat_from_sequence(context: NodeContext, sequence: tuple[Tensor, ...]) -> Tensor:
    axis = context.get("axis", 0)
    return torch.stack(sequence, axis) if context.get("new_axis", 0) else torch.cat(sequence, axis)
