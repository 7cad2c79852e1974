"""Exporters that come with EdgeDAFL: ONNX, ONNX Runtime's own format, and TensorRT."""
