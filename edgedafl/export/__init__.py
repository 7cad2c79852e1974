"""From a trained student to a bundle that runs on a device."""

from edgedafl.export.base import Artifacts, Bundle, Exporter, read_bundle, write_bundle
from edgedafl.export.lookup import find_exporter, list_exporters
from edgedafl.export.student_onnx import student_to_onnx

__all__ = [
    "Artifacts",
    "Bundle",
    "Exporter",
    "find_exporter",
    "list_exporters",
    "read_bundle",
    "student_to_onnx",
    "write_bundle",
]
