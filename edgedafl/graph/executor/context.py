"""What an op function gets beside its inputs, the op table, and the two value domains.

A value is either *host* (a numpy array: shapes, indices, constants known before any image is
seen) or *data* (a torch tensor, which carries the gradient). Keeping shapes on the host means
that no op ever waits for the accelerator.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from edgedafl.errors import UnsupportedModelError

__all__ = [
    "MICROSOFT",
    "NodeContext",
    "Value",
    "align",
    "host",
    "integers",
    "lookup",
    "on_device",
    "op",
    "pads_to_torch",
    "register",
    "tensor_like",
    "unsupported",
]

Value = np.ndarray | Tensor | None
OpFunction = Callable[..., Any]

MICROSOFT = "com.microsoft"
_OPS: dict[tuple[str, str], OpFunction] = {}
_PLACED: dict[tuple[int, torch.device], Tensor] = {}


@dataclass(frozen=True)
class NodeContext:
    """One node as its op function sees it: attributes, opset version, number of outputs."""

    op_type: str
    name: str
    opset: int
    outputs: int
    attributes: dict[str, Any]
    cache: dict[Any, Tensor] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, node: onnx.NodeProto, opset: int) -> NodeContext:
        """Read a node; byte strings become str."""
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
        name = node.name or node.output[0]
        return cls(node.op_type, name, opset, len(node.output), attributes)

    def get(self, key: str, default: Any = None) -> Any:
        """An attribute, or the default of the operator's specification."""
        return self.attributes.get(key, default)


def op(*names: str, domain: str = "") -> Callable[[OpFunction], OpFunction]:
    """Enter the decorated function into the op table under `names`.

    Examples:
        >>> double = op("MyDouble", domain="com.example")(lambda context, x: 2 * x)
        >>> lookup("com.example", "MyDouble") is double
        True
    """

    def enter(function: OpFunction) -> OpFunction:
        for name in names:
            _OPS[domain, name] = function
        return function

    return enter


def register(table: dict[str, OpFunction], domain: str = "") -> None:
    """Enter several op functions at once.

    Examples:
        >>> register({"MyTriple": lambda context, x: 3 * x}, domain="com.example")
        >>> lookup("com.example", "MyTriple") is not None
        True
    """
    for name, function in table.items():
        _OPS[domain, name] = function


def lookup(domain: str, op_type: str) -> OpFunction | None:
    """The function of an operator, or None where there is none.

    Examples:
        >>> import edgedafl.graph.executor  # fills the table
        >>> lookup("", "Conv") is not None, lookup("", "NoSuchOperator")
        (True, None)
    """
    return _OPS.get(("" if domain == "ai.onnx" else domain, op_type))


def unsupported(context: NodeContext, detail: str) -> UnsupportedModelError:
    """An error that names the node and the form of it that cannot run.

    Examples:
        >>> context = NodeContext("Pad", "pad1", 18, 1, {})
        >>> print(unsupported(context, "mode 'wrap'"))
        Node 'pad1' uses Pad with mode 'wrap', which is not supported.
    """
    return UnsupportedModelError(
        f"Node {context.name!r} uses {context.op_type} with {detail}, which is not supported.",
        "Export the model without it.",
    )


def host(value: Any) -> np.ndarray:
    """A value as numpy; a data tensor is brought to the host (only where a shape needs it).

    Examples:
        >>> host(torch.tensor([2, 3]))
        array([2, 3])
    """
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    return np.asarray(value)


def integers(value: Any) -> list[int]:
    """A host value as a flat list of ints: axes, shapes, pads.

    Examples:
        >>> integers(np.array([1, 2]))
        [1, 2]
    """
    return [int(v) for v in host(value).reshape(-1)]


def on_device(value: Any, device: torch.device) -> Tensor:
    """A host value as a tensor.

    An accelerator gets a constant once: every copy from the host waits for all that it has to do.

    Examples:
        >>> on_device(np.array([2.0, 3.0]), torch.device("cpu"))
        tensor([2., 3.], dtype=torch.float64)
    """
    if device.type == "cpu" or not isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value)).to(device)
    key = id(value), device
    if key not in _PLACED:
        _PLACED[key] = torch.from_numpy(np.array(value)).to(device)
        weakref.finalize(value, _PLACED.pop, key, None)
    return _PLACED[key]


def tensor_like(value: Any, reference: Tensor) -> Tensor:
    """A value as a tensor beside `reference`: same device, same float type.

    Examples:
        >>> tensor_like(np.array([1.5]), torch.zeros(1, dtype=torch.float64)).dtype
        torch.float64
    """
    if not isinstance(value, Tensor):
        value = on_device(value, reference.device)
    if value.is_floating_point() and reference.is_floating_point() and value.dtype != reference.dtype:
        value = value.to(reference.dtype)
    return value


def align(*values: Any) -> list[Any]:
    """Bring host values beside the first data tensor among them; None stays None.

    Examples:
        >>> align(torch.zeros(1), np.array([2.0]), None)
        [tensor([0.]), tensor([2.]), None]
    """
    reference = next((v for v in values if isinstance(v, Tensor)), None)
    if reference is None:
        return [None if v is None else torch.from_numpy(np.array(v)) for v in values]
    return [None if v is None else tensor_like(v, reference) for v in values]


def pads_to_torch(begin: Sequence[int], end: Sequence[int]) -> list[int]:
    """Per-axis pads in the order `torch.nn.functional.pad` takes: last axis first.

    Examples:
        >>> pads_to_torch([0, 0, 1, 2], [0, 0, 3, 4])
        [2, 4, 1, 3, 0, 0, 0, 0]
    """
    order: list[int] = []
    for low, high in zip(reversed(begin), reversed(end), strict=True):
        order += [low, high]
    return order
