"""The stages of a run; each reads and writes files of one run directory."""

from edgedafl.stages.against import Slowdown, measure_against
from edgedafl.stages.calibrate import calibrate_device
from edgedafl.stages.calibrations import calibration_of, keep_calibration
from edgedafl.stages.candidates import possible_bits
from edgedafl.stages.claim import record
from edgedafl.stages.distill import assist, distill_stage
from edgedafl.stages.export import export_stage
from edgedafl.stages.ladder import Ladder, build_ladder
from edgedafl.stages.prepare import Plan, labelled_of, options_of, prepare
from edgedafl.stages.profile import profile_bundle, profile_stage, require_device
from edgedafl.stages.quantize import allowed_drop, load_models, quantize_stage
from edgedafl.stages.students import StudentBuilder, builder, choose_student, pruner_of
from edgedafl.stages.study import Study, study_teacher
from edgedafl.stages.verdict import band_of, verdict_stage
from edgedafl.stages.verify import check_answers, compare_models, shipped_scores, trials, verify_stage

__all__ = [
    "Ladder",
    "Plan",
    "Slowdown",
    "StudentBuilder",
    "Study",
    "allowed_drop",
    "assist",
    "band_of",
    "build_ladder",
    "builder",
    "calibrate_device",
    "calibration_of",
    "check_answers",
    "choose_student",
    "compare_models",
    "distill_stage",
    "export_stage",
    "keep_calibration",
    "labelled_of",
    "load_models",
    "measure_against",
    "options_of",
    "possible_bits",
    "prepare",
    "profile_bundle",
    "profile_stage",
    "pruner_of",
    "quantize_stage",
    "record",
    "require_device",
    "shipped_scores",
    "study_teacher",
    "trials",
    "verdict_stage",
    "verify_stage",
]
