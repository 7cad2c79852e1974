"""What a model is, before anything is made of it."""

from __future__ import annotations

from dataclasses import dataclass

from edgedafl.distill.monitoring.preflight import check_teacher
from edgedafl.graph.facts import GraphFacts, facts_of
from edgedafl.graph.load import load_onnx
from edgedafl.runs import Preflight
from edgedafl.teachers import OnnxTeacher, RuntimeTeacher, TeacherOptions, TeacherSpec, load_teacher

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True)
class Inspection:
    """What a model is.

    Attributes:
        spec: What is known of it as a teacher.
        preflight: What it answers to procedural images.
        graph: Facts of its graph; None for PyTorch and served teachers.
    """

    spec: TeacherSpec
    preflight: Preflight
    graph: GraphFacts | None


def inspect(source: str, options: TeacherOptions | None = None) -> Inspection:
    """Load a model as a teacher and look at it.

    Args:
        source: An .onnx file, `package.module:factory`, a PyTorch file (with `trust`), or an address.
        options: What is declared about it; `TeacherOptions()` when None.

    Returns:
        Its specification, its first answers, and facts of its graph.

    Raises:
        EdgeDaflError: One of its children; `UnsupportedModelError` if it cannot be a teacher.

    Examples:
        >>> from edgedafl import TeacherOptions, inspect
        >>> found = inspect("examples/mnist/teacher.onnx", TeacherOptions(mean=(0.1307,), std=(0.3081,)))
        >>> found.spec.num_classes, found.spec.input_shape
        (10, (1, 32, 32))
    """
    teacher = load_teacher(source, options)
    graph = facts_of(load_onnx(source).model) if isinstance(teacher, OnnxTeacher | RuntimeTeacher) else None
    return Inspection(teacher.spec, check_teacher(teacher), graph)
