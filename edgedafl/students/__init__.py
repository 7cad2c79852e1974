"""Students: small networks that learn from a teacher."""

from edgedafl.module_cost import module_layers, module_macs
from edgedafl.students.base import Student, StudentSpec
from edgedafl.students.fit import Budget, Candidate, fit_student, students_below
from edgedafl.students.layout import training_format
from edgedafl.students.registry import ARCHITECTURES, build_student

__all__ = [
    "ARCHITECTURES",
    "Budget",
    "Candidate",
    "Student",
    "StudentSpec",
    "build_student",
    "fit_student",
    "module_layers",
    "module_macs",
    "students_below",
    "training_format",
]
