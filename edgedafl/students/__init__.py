"""Students: small networks that learn from a teacher."""

from edgedafl.module_cost import module_layers, module_macs
from edgedafl.students.base import KEPT, PRUNED, Student, StudentSpec
from edgedafl.students.features.hints import HintLoss
from edgedafl.students.features.loss import FeatureLoss
from edgedafl.students.fit import Budget, Candidate, fit_student, modest_share, students_below, usual_students
from edgedafl.students.layout import training_format
from edgedafl.students.pruner import Pruner, images_at_once, pruned_width
from edgedafl.students.registry import ARCHITECTURES, build_student

__all__ = [
    "ARCHITECTURES",
    "KEPT",
    "PRUNED",
    "Budget",
    "Candidate",
    "FeatureLoss",
    "HintLoss",
    "Pruner",
    "Student",
    "StudentSpec",
    "build_student",
    "fit_student",
    "images_at_once",
    "modest_share",
    "module_layers",
    "module_macs",
    "pruned_width",
    "students_below",
    "training_format",
    "usual_students",
]
