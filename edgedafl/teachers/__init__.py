"""Teachers: classifiers that are asked and never changed."""

from __future__ import annotations

from pathlib import Path

from edgedafl.errors import UnsupportedModelError, reason_of
from edgedafl.teachers.base import (
    BatchNormStatistics,
    QueryBudgetError,
    Teacher,
    TeacherOutput,
    TeacherSpec,
)
from edgedafl.teachers.forward import ForwardTeacher, OpaqueTeacher
from edgedafl.teachers.from_http import HttpTeacher, load_http_teacher, looks_like_url
from edgedafl.teachers.from_onnx import OnnxTeacher, load_onnx_teacher
from edgedafl.teachers.from_runtime import RuntimeTeacher, load_runtime_teacher
from edgedafl.teachers.from_torch import PYTORCH_FILES, TorchTeacher, load_torch_teacher, looks_like_factory
from edgedafl.teachers.options import TeacherOptions

__all__ = [
    "BatchNormStatistics",
    "ForwardTeacher",
    "HttpTeacher",
    "OnnxTeacher",
    "OpaqueTeacher",
    "QueryBudgetError",
    "RuntimeTeacher",
    "Teacher",
    "TeacherOptions",
    "TeacherOutput",
    "TeacherSpec",
    "TorchTeacher",
    "is_plain_file",
    "load_http_teacher",
    "load_onnx_teacher",
    "load_runtime_teacher",
    "load_teacher",
    "load_torch_teacher",
]


_BROKEN = (ArithmeticError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def is_plain_file(source: str) -> bool:
    """Whether a teacher is an ONNX file, which neither runs code nor asks anyone.

    Examples:
        >>> is_plain_file("model.onnx"), is_plain_file("my.models:resnet"), is_plain_file("model.pt")
        (True, False, False)
    """
    return not (looks_like_url(source) or looks_like_factory(source) or Path(source).suffix.lower() in PYTORCH_FILES)


def load_teacher(source: str, options: TeacherOptions | None = None) -> Teacher:
    """Load a teacher from a file, a `package.module:factory`, or the address of a served model.

    Args:
        source: An .onnx file, a factory, a PyTorch file (with `trust`), or `https://host/v2/models/NAME`.
        options: What is declared about it; `TeacherOptions()` when None.

    Returns:
        A frozen classifier: images (N,C,H,W) float32 in model space to logits (N,K), on the CPU.

    Raises:
        UsageError: If there is no such file, or it needs `trust`.
        UnsupportedModelError: If it is damaged, or is not an image classifier.
        EnvironmentMissingError: If a package that it needs is missing.

    Examples:
        >>> from edgedafl import TeacherOptions, load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx", TeacherOptions(mean=(0.1307,), std=(0.3081,)))
        >>> teacher.spec.task, teacher.spec.access
        ('single-label', 'gradient')
    """
    options = options or TeacherOptions()
    if looks_like_url(source):
        return load_http_teacher(source, options)
    if looks_like_factory(source) or Path(source).suffix.lower() in PYTORCH_FILES:
        inner = load_torch_teacher(source, options)
        if options.access in ("scores", "labels"):
            return OpaqueTeacher(inner, options.access, max_queries=options.max_queries)
        return inner
    try:
        if options.access in ("scores", "labels"):
            return load_runtime_teacher(source, options)
        return load_onnx_teacher(source, options)
    except _BROKEN as error:
        # Files of other people, damaged ones included, hold more than any check foresees.
        raise UnsupportedModelError(
            f"{source} cannot be imported: {reason_of(error)} ({type(error).__name__}).",
            "Copy or export it again; if other programs run it, please report it.",
        ) from error
