"""Runs on disk: their directory, and a typed record of what every stage found.

Nothing here opens a model: a gate reads a run without torch.
"""

from edgedafl.runs.directory import RunDirectory
from edgedafl.runs.fidelity import Band, Candidate, FidelityVerdict
from edgedafl.runs.json_form import result_to_dict
from edgedafl.runs.latency import (
    EMULATED,
    AnswerCheck,
    Environment,
    Estimate,
    LatencySummary,
    LayerTime,
    MeasuredLatency,
    Recommendation,
)
from edgedafl.runs.limits import GateReport, Verdict
from edgedafl.runs.models import KEPT, PRUNED, StudentSpec, TeacherRecord, TeacherSpec
from edgedafl.runs.record import (
    PictureRecord,
    Preflight,
    Progress,
    RunRecord,
    StageRecord,
    TargetRecord,
    json_schema,
)
from edgedafl.runs.results import (
    AgreementReport,
    Confused,
    DistillResult,
    ExportResult,
    KeptFloat,
    LostClass,
    Parity,
    ProfileResult,
    QuantizeResult,
    SameAnswers,
    VerifyResult,
)

__all__ = [
    "EMULATED",
    "KEPT",
    "PRUNED",
    "AgreementReport",
    "AnswerCheck",
    "Band",
    "Candidate",
    "Confused",
    "DistillResult",
    "Environment",
    "Estimate",
    "ExportResult",
    "FidelityVerdict",
    "GateReport",
    "KeptFloat",
    "LatencySummary",
    "LayerTime",
    "LostClass",
    "MeasuredLatency",
    "Parity",
    "PictureRecord",
    "Preflight",
    "ProfileResult",
    "Progress",
    "QuantizeResult",
    "Recommendation",
    "RunDirectory",
    "RunRecord",
    "SameAnswers",
    "StageRecord",
    "StudentSpec",
    "TargetRecord",
    "TeacherRecord",
    "TeacherSpec",
    "Verdict",
    "VerifyResult",
    "json_schema",
    "result_to_dict",
]
