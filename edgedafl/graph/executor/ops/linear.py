"""Matrix products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from edgedafl.graph.executor.context import MICROSOFT, NodeContext, align, op

__all__: list[str] = []


@op("MatMul")
def matmul(context: NodeContext, a: Any, b: Any) -> Tensor:
    a, b = align(a, b)
    return torch.matmul(a, b)


@op("Gemm")
def gemm(context: NodeContext, a: Any, b: Any, c: Any = None) -> Tensor:
    """Alpha * op(A) op(B) + beta * C; the plain form goes to one fused linear call."""
    a, b, c = align(a, b, c)
    alpha, beta = context.get("alpha", 1.0), context.get("beta", 1.0)
    a = a.mT if context.get("transA", 0) else a
    b = b.mT if context.get("transB", 0) else b
    if alpha == 1 and (c is None or (beta == 1 and c.ndim == 1 and c.shape[0] == b.shape[1])):
        return F.linear(a, b.mT, c)
    product = alpha * (a @ b)
    return product if c is None else product + beta * c


@op("FusedMatMul", domain=MICROSOFT)
def fused_matmul(context: NodeContext, a: Any, b: Any) -> Tensor:
    a, b = align(a, b)
    a = a.mT if context.get("transA", 0) else a
    b = b.mT if context.get("transB", 0) else b
    return context.get("alpha", 1.0) * torch.matmul(a, b)


@op("Einsum")
def einsum(context: NodeContext, *operands: Any) -> Tensor:
    return torch.einsum(context.get("equation"), *align(*operands))
