"""Scaled dot-product attention, an operator since opset 23."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgedafl.graph.executor.context import NodeContext, align, op, unsupported

__all__: list[str] = []


@op("Attention")
def attention(
    context: NodeContext,
    q: Any,
    k: Any,
    v: Any,
    mask: Any = None,
    past_key: Any = None,
    past_value: Any = None,
    *_: Any,
) -> Tensor:
    """Heads side by side (N, heads, length, width), or one after the other in rows (N, length, heads * width)."""
    if past_key is not None or past_value is not None or context.outputs > 1 or any(x is not None for x in _):
        raise unsupported(context, "earlier keys and values")
    q, k, v = align(q, k, v)
    rows = q.ndim == 3
    if rows:
        many, few = context.get("q_num_heads"), context.get("kv_num_heads")
        q, k, v = (_heads(x, count) for x, count in ((q, many), (k, few), (v, few)))
    shared = q.shape[1] // k.shape[1]
    if shared > 1:  # several queries' heads share one of keys
        k, v = (x.repeat_interleave(shared, 1) for x in (k, v))
    scale = context.get("scale", q.shape[-1] ** -0.5)
    scores = scale * (q @ k.mT)
    softcap = context.get("softcap", 0.0)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        mask = align(mask)[0]
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    if context.get("is_causal", 0):
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    shares = torch.softmax(scores, -1)
    if mask is not None or context.get("is_causal", 0):
        shares = shares.nan_to_num(0.0)  # rows that may look at nothing
    found = shares @ v
    return found.transpose(1, 2).flatten(2) if rows else found


def _heads(rows: Tensor, count: int) -> Tensor:
    return rows.unflatten(2, (count, -1)).transpose(1, 2)
