"""ONNX graphs as differentiable torch modules."""

from edgedafl.graph.executor.module import OnnxModule, Walk, unsupported_nodes

__all__ = ["OnnxModule", "Walk", "unsupported_nodes"]
