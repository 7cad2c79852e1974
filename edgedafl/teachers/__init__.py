"""Teachers: classifiers that are asked and never changed."""

from __future__ import annotations

from edgedafl.teachers.base import (
    BatchNormStatistics,
    QueryBudgetError,
    Teacher,
    TeacherOutput,
    TeacherSpec,
)
from edgedafl.teachers.from_onnx import OnnxTeacher, load_onnx_teacher
from edgedafl.teachers.from_torch import TorchTeacher, load_torch_teacher, looks_like_factory
from edgedafl.teachers.options import TeacherOptions

__all__ = [
    "BatchNormStatistics",
    "OnnxTeacher",
    "QueryBudgetError",
    "Teacher",
    "TeacherOptions",
    "TeacherOutput",
    "TeacherSpec",
    "TorchTeacher",
    "load_onnx_teacher",
    "load_teacher",
    "load_torch_teacher",
]


def load_teacher(source: str, options: TeacherOptions | None = None) -> Teacher:
    """Load a teacher from an ONNX file or a `package.module:factory`.

    Raises:
        EdgeDaflError: One of its children, see `load_onnx_teacher` and `load_torch_teacher`.
    """
    options = options or TeacherOptions()
    if looks_like_factory(source):
        return load_torch_teacher(source, options)
    return load_onnx_teacher(source, options)
