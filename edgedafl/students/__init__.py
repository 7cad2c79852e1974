"""Students: small networks that learn from a teacher."""

from edgedafl.module_cost import module_layers, module_macs
from edgedafl.students.base import PRUNED, Student, StudentSpec
from edgedafl.students.comparison import LayerComparison
from edgedafl.students.fit import Budget, Candidate, fit_student, students_below, usual_students
from edgedafl.students.hints import Hints
from edgedafl.students.layout import training_format
from edgedafl.students.pruned import Pruner, pruned_width
from edgedafl.students.registry import ARCHITECTURES, build_student

__all__ = [
    "ARCHITECTURES",
    "PRUNED",
    "Budget",
    "Candidate",
    "Hints",
    "LayerComparison",
    "Pruner",
    "Student",
    "StudentSpec",
    "build_student",
    "fit_student",
    "module_layers",
    "module_macs",
    "pruned_width",
    "students_below",
    "training_format",
    "usual_students",
]
