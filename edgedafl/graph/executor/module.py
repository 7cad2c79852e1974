"""The executor: one torch module that runs an ONNX graph node by node.

Autograd records the torch calls, so the module is differentiable with respect to its input.
There is nothing to convert, hence nothing that can be converted wrongly; what the op table lacks
is known before the first image (`unsupported_nodes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgedafl.errors import UnsupportedModelError
from edgedafl.graph.executor import ops as _ops  # noqa: F401  (fills the op table)
from edgedafl.graph.executor.context import NodeContext, host, lookup, on_device
from edgedafl.graph.executor.host import constant_value, evaluate_on_host
from edgedafl.graph.needed import outer_names

__all__ = ["OnnxModule", "Step", "Walk", "unsupported_nodes"]

_CONTROL = {"Constant", "If"}
# These read only the shape of a data tensor, or build host values from host values.
_SHAPE_OPS = {"Shape", "Size"}
_OWN_HOST_OPS = {"ConstantOfShape", "Range"}
_NO_MOVES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({})


def unsupported_nodes(graph: onnx.GraphProto) -> list[str]:
    """Describe the nodes (subgraphs included) that the op table cannot run, e.g. `NonZero 'n3'`.

    Examples:
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[2] x) => (int64[1,n] y) { y = NonZero(x) }'
        >>> unsupported_nodes(onnx.parser.parse_model(text).graph)
        ["NonZero 'y'"]
    """
    missing = []
    for node in graph.node:
        known = node.domain in ("", "ai.onnx") and node.op_type in _CONTROL
        if not known and lookup(node.domain, node.op_type) is None:
            domain = f"{node.domain}." if node.domain else ""
            missing.append(f"{domain}{node.op_type} {node.name or node.output[0]!r}")
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                missing += unsupported_nodes(attribute.g)
    return missing


@dataclass(frozen=True)
class Step:
    """A node with what it is run with, and the values that nobody needs behind it."""

    node: onnx.NodeProto
    context: NodeContext
    releases: tuple[str, ...]


class Walk:
    """One place on the way through a graph; see `OnnxModule.walk`.

    Attributes:
        values: Values that are still needed, by name; they may be changed.
        step: The node that comes next.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]>
        ...     g (float[n,2] x) => (float[n,2] y) { a = Relu(x)  y = Neg(a) }'''
        >>> network = OnnxModule(onnx.parser.parse_model(text))
        >>> [walk.node.op_type for walk in network.walk({"x": torch.zeros(1, 2)})]
        ['Relu', 'Neg']
    """

    def __init__(self, values: dict[str, Any], module: OnnxModule) -> None:
        self.values = values
        self._module = module
        self._done: Step | None = None
        self.step: Step | None = None

    @property
    def node(self) -> onnx.NodeProto:
        """The node that comes next."""
        assert self.step is not None
        return self.step.node

    def run(self) -> None:
        """Run the next node, once; going on runs it where that was not done."""
        if self.step is not None and self.step is not self._done:
            self._done = self.step
            self._module.execute_step(self.step, self.values)


class OnnxModule(nn.Module):
    """A differentiable torch module over one ONNX graph.

    Args:
        model: The model. Local functions must be inlined before.
        base_dir: Folder of external data files.
        dtype: Working float type; float64 serves gradient checks.
        keep: Names of intermediate values that `run` may be asked for.

    Raises:
        UnsupportedModelError: If a node's operator is not in the op table.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,2] x) => (float[n,2] y) { y = Relu(x) }'''
        >>> OnnxModule(onnx.parser.parse_model(text))(torch.tensor([[-1.0, 2.0]]))
        tensor([[0., 2.]])
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        base_dir: Path | str = "",
        dtype: torch.dtype = torch.float32,
        keep: Iterable[str] = (),
    ) -> None:
        super().__init__()
        missing = unsupported_nodes(model.graph)
        if missing:
            raise UnsupportedModelError(f"{len(missing)} nodes cannot run: {', '.join(missing[:5])}.")
        self.dtype = dtype
        self._opsets = {o.domain or "ai.onnx": o.version for o in model.opset_import}
        self._buffer_of: dict[str, str] = {}
        self._constants: dict[str, np.ndarray] = {}
        self._host_cache: dict[Any, dict[str, np.ndarray]] = {}
        for tensor in model.graph.initializer:
            self._add_initializer(tensor, str(base_dir))
        given = set(self._buffer_of) | set(self._constants)
        # IR 3 lists initializers among the inputs as well.
        self.input_names = [i.name for i in model.graph.input if i.name not in given]
        self.output_names = [o.name for o in model.graph.output]
        self._keep = set(self.output_names) | set(keep)
        self._steps = self._plan(model.graph.node)

    def _add_initializer(self, tensor: onnx.TensorProto, base_dir: str) -> None:
        array = onnx.numpy_helper.to_array(tensor, base_dir)
        if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
            self._constants[tensor.name] = array
        elif array.size <= 1:
            # Scalars stay on the host: reading one must not wait for the accelerator.
            self._constants[tensor.name] = array.astype(np.float32)
        else:
            buffer = f"w{len(self._buffer_of)}"
            self.register_buffer(buffer, torch.tensor(array.astype(np.float32)).to(self.dtype))
            self._buffer_of[tensor.name] = buffer

    def make_trainable(self, names: Iterable[str]) -> dict[str, nn.Parameter]:
        """Turn initializers into parameters; names that the module does not hold as tensors are left out.

        Returns:
            The parameters by initializer name.
        """
        found = {}
        for name in names:
            key = self._buffer_of.get(name)
            if key is not None:
                value = getattr(self, key)
                delattr(self, key)
                found[name] = nn.Parameter(value)
                self.register_parameter(key, found[name])
        return found

    def initializer(self, name: str) -> Tensor:
        """The tensor of an initializer of more than one element, trained or not."""
        value: Tensor = getattr(self, self._buffer_of[name])
        return value

    def _plan(self, nodes: Sequence[onnx.NodeProto], *, release: bool = True) -> list[Step]:
        last_use: dict[str, int] = {}
        for index, node in enumerate(nodes):
            for name in [*node.input, *outer_names(node)]:
                last_use[name] = index
        permanent = self._keep | set(self._buffer_of) | set(self._constants)
        steps = []
        for index, node in enumerate(nodes):
            opset = self._opsets.get(node.domain or "ai.onnx", 1)
            done = {n for n in node.input if n and last_use[n] == index and n not in permanent}
            releases = tuple(done) if release else ()
            steps.append(Step(node, NodeContext.of(node, opset), releases))
        return steps

    def forward(self, *inputs: Tensor) -> Tensor:
        """The first output for inputs given in graph order."""
        return self.run(dict(zip(self.input_names, inputs, strict=True)))[self.output_names[0]]

    def run(
        self, feeds: Mapping[str, Tensor | np.ndarray], moves: Mapping[str, Callable[[Tensor], Tensor]] = _NO_MOVES
    ) -> dict[str, Tensor]:
        """Run the graph; returns its outputs and every kept intermediate value by name.

        Args:
            feeds: Inputs by name: tensors are data, at least one; numpy arrays are host values
                (shapes, axes), of which nothing is differentiated.
            moves: What becomes of values before anything reads them, by name.
        """
        reference = next(value for value in feeds.values() if isinstance(value, Tensor))
        values: dict[str, Any] = {n: self._typed(v) if isinstance(v, Tensor) else v for n, v in feeds.items()}
        values.update({name: getattr(self, buffer) for name, buffer in self._buffer_of.items()})
        values.update(self._constants)
        # What stays on the host depends on shapes, and on host values that were fed.
        key = tuple(tuple(v.shape) if isinstance(v, Tensor) else v.tobytes() for v in feeds.values())
        self._execute(self._steps, values, self._host_cache.setdefault(key, {}), moves)
        found = {name: values[name] for name in self._keep if name in values}
        outputs = {n: v if isinstance(v, Tensor) else on_device(v, reference.device) for n, v in found.items()}
        return {n: self._typed(v) for n, v in outputs.items()}

    def holds(self, name: str) -> bool:
        """Whether an initializer is held as a tensor, see `initializer`."""
        return name in self._buffer_of

    def walk(self, feeds: Mapping[str, Tensor]) -> Iterator[Walk]:
        """Stop before every node, in graph order: its inputs can be read and weights changed before it runs.

        Args:
            feeds: Inputs by name.
        """
        walk = Walk({**feeds, **self._constants}, self)
        for step in self._steps:
            walk.step = step
            yield walk
            walk.run()

    def execute_step(self, step: Step, values: dict[str, Any]) -> None:
        """Run one node of `walk` on values by name, which get its outputs and lose what is not needed again."""
        values.update({n: getattr(self, self._buffer_of[n]) for n in step.node.input if n in self._buffer_of})
        self._execute([step], values, {})

    def _typed(self, value: Tensor) -> Tensor:
        return value.to(self.dtype) if value.is_floating_point() else value

    def _execute(
        self,
        steps: list[Step],
        values: dict[str, Any],
        cache: dict[str, np.ndarray],
        moves: Mapping[str, Callable[[Tensor], Tensor]] = _NO_MOVES,
    ) -> None:
        for step in steps:
            outputs = step.node.output
            if outputs[0] in cache:
                values.update({name: cache[name] for name in outputs if name in cache})
                continue
            results = self._run_step(step, values)
            for name, result in zip(outputs, results, strict=False):
                values[name] = moves[name](result) if name in moves else result
                if isinstance(result, np.ndarray):
                    cache[name] = result
            for name in step.releases:
                values.pop(name, None)

    def _run_step(self, step: Step, values: dict[str, Any]) -> list[Any]:
        node, context = step.node, step.context
        if node.op_type == "Constant":
            return [constant_value(node)]
        if node.op_type == "If":
            return self._branch(node, context, values)
        inputs = [values[name] if name else None for name in node.input]
        while inputs and inputs[-1] is None:
            inputs.pop()
        function = lookup(node.domain, node.op_type)
        assert function is not None  # checked when the module was built
        if not any(isinstance(value, Tensor | tuple) for value in inputs):
            if node.op_type in _OWN_HOST_OPS | _SHAPE_OPS:
                return [function(context, *inputs)]
            return cast("list[Any]", evaluate_on_host(node, inputs, context.opset))
        result = function(context, *inputs)
        return result if isinstance(result, list) else [result]

    def _branch(self, node: onnx.NodeProto, context: NodeContext, values: dict[str, Any]) -> list[Any]:
        """Run the branch that a condition known at this point selects."""
        chosen = bool(host(values[node.input[0]]).reshape(()))
        graph = context.attributes["then_branch" if chosen else "else_branch"]
        inner = dict(values)
        inner.update({t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer})
        self._execute(self._plan(graph.node, release=False), inner, {})
        return [inner[output.name] for output in graph.output]
