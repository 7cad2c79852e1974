"""Simplification with onnx-simplifier, taken only when it changes no answer."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

import onnx

__all__ = ["simplify"]

_log = logging.getLogger(__name__)


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """A simpler graph, or the same one where the simplifier fails or finds a difference.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]>
        ...     g (float[1] x) => (float[1] y) { a = Identity(x)  y = Relu(a) }'''
        >>> [node.op_type for node in simplify(onnx.parser.parse_model(text)).graph.node]
        ['Relu']
    """
    import onnxsim

    try:
        with _silent():
            simpler, valid = onnxsim.simplify(model)
    except Exception as error:  # the simplifier's errors share no base class
        _log.info("onnx-simplifier failed, the graph stays as it is: %s", error)
        return model
    return simpler if valid else model


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing reaches standard error, not even from C++: the simplifier warns of what it leaves alone."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
