"""From a trained student to a bundle that runs on a device."""

from edgedafl.export.base import Artifacts, Bundle, Exporter, write_bundle
from edgedafl.export.lookup import find_exporter, list_exporters
from edgedafl.export.read import opened_bundle, read_bundle
from edgedafl.export.student_onnx import student_to_onnx

__all__ = [
    "Artifacts",
    "Bundle",
    "Exporter",
    "find_exporter",
    "list_exporters",
    "opened_bundle",
    "read_bundle",
    "student_to_onnx",
    "write_bundle",
]
