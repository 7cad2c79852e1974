"""ONNX graphs as differentiable torch modules."""

from edgedafl.graph.executor.module import OnnxModule, unsupported_nodes

__all__ = ["OnnxModule", "unsupported_nodes"]
