"""Simplification with onnx-simplifier, taken only when it changes no answer."""

from __future__ import annotations

import logging

import onnx

__all__ = ["simplify"]

_log = logging.getLogger(__name__)


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """A simpler graph, or the same one where the simplifier fails or finds a difference."""
    import onnxsim

    try:
        simpler, valid = onnxsim.simplify(model)
    except Exception as error:  # the simplifier's errors share no base class
        _log.info("onnx-simplifier failed, the graph stays as it is: %s", error)
        return model
    return simpler if valid else model
