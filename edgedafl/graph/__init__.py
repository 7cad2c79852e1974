"""ONNX graphs: reading, facts, cost, rewriting, and running them with torch."""
