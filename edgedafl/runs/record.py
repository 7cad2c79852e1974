"""`run.json` as one typed record.

The file is validated once, when it is read; whoever reports, compares or gates a run reads attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from edgedafl.config import CompressConfig
from edgedafl.errors import UsageError
from edgedafl.preprocess import middle_share
from edgedafl.runs.fidelity import Candidate, FidelityVerdict
from edgedafl.runs.json_form import adapter_of, read_result
from edgedafl.runs.limits import GateReport
from edgedafl.runs.models import StudentSpec, TeacherRecord
from edgedafl.runs.results import (
    AgreementReport,
    DistillResult,
    ExportResult,
    ProfileResult,
    QuantizeResult,
    VerifyResult,
)

__all__ = [
    "SCHEMA",
    "PictureRecord",
    "Preflight",
    "Progress",
    "RunRecord",
    "StageRecord",
    "TargetRecord",
    "json_schema",
    "read_record",
    "refuse_schema",
]

SCHEMA = 1
"""Version of `run.json`; raised when an older file would be misread."""

_Result = TypeVar("_Result")
_RESULTS: dict[str, type[Any]] = {
    "distill": DistillResult,
    "quantize": QuantizeResult,
    "export": ExportResult,
    "verify": VerifyResult,
    "profile": ProfileResult,
}


@dataclass(frozen=True)
class StageRecord:
    """What a finished stage left behind.

    Attributes:
        inputs: Digest of everything that the stage depends on.
        outputs: sha256 of each file it wrote, by path inside the run directory.
        result: What it found.
    """

    inputs: str
    outputs: dict[str, str]
    result: dict[str, Any]


@dataclass(frozen=True)
class TargetRecord:
    """The target of a run.

    Attributes:
        name: As `--target` takes it.
        title: For people.
    """

    name: str
    title: str


@dataclass(frozen=True)
class PictureRecord:
    """The pictures that a user gave with `--images`.

    Attributes:
        source: Folder or file.
        found: Files that were there.
        used: Pictures that were read.
        unreadable: Files that are not pictures.
        examples: Names of a few of those.
    """

    source: str
    found: int
    used: int
    unreadable: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preflight:
    """What a teacher answers to procedural images.

    Attributes:
        classes_seen: Classes that are the arg-max of at least one image.
        most_common: Share of the most common class, in [0, 1].
        entropy: Entropy of the arg-max classes over its maximum, in [0, 1].
        confidence: Mean of the largest probability, in [0, 1].
        warning: What the user should check; empty if nothing.
    """

    classes_seen: int
    most_common: float
    entropy: float
    confidence: float
    warning: str


@dataclass(frozen=True)
class Progress:
    """A line of `metrics.jsonl`.

    Attributes:
        step: Synthesizer steps so far.
        fraction: Share of the budget used, in [0, 1].
        seconds: Time spent, over all parts of the run.
        losses: The synthesizer's terms and `distillation`.
        agreement: Synthetic agreement of the averaged student; None between probes.
        images_per_second: Student images per second since the last report.
        queries: Rows the teacher has answered.
        fidelity: Predicted for the student as it stands, in [0, 1]; None between looks, or where it cannot be told.
    """

    step: int
    fraction: float
    seconds: float
    losses: dict[str, float]
    agreement: AgreementReport | None
    images_per_second: float
    queries: int
    fidelity: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class RunRecord:
    """All that a run directory knows of itself.

    Attributes:
        schema: Version of the file.
        command: The exact command.
        identity: Digest of everything that the student depends on.
        config: The settings in force.
        target: What the artifact is for.
        precision: Asked for: `int8`, `fp16` or `fp32`.
        teacher: The teacher.
        student: The student that was taken.
        candidate: Its name while the run goes on.
        weight_bits: Mean bits of a weight in the file of an int8 artifact.
        versions: Of the packages that made it.
        machine: That made it.
        preflight: The teacher's first answers.
        ladder: Candidates that were considered, smallest first; None where the student was named.
        pictures: The user's own; None where none were given.
        verdict: How faithful the artifact is; None until it is known.
        gate: How limits fared; None where there are none.
        stages: What finished, by name; stages of other targets are called `stage:target`.
    """

    schema: int
    command: str
    config: CompressConfig
    target: TargetRecord
    precision: str
    teacher: TeacherRecord
    student: StudentSpec
    versions: dict[str, str]
    identity: str = ""
    candidate: str = ""
    weight_bits: float = 8.0
    machine: dict[str, str] = field(default_factory=dict)
    preflight: Preflight | None = None
    ladder: tuple[Candidate, ...] | None = None
    pictures: PictureRecord | None = None
    verdict: FidelityVerdict | None = None
    gate: GateReport | None = None
    stages: dict[str, StageRecord] = field(default_factory=dict)

    @cached_property
    def distilled(self) -> DistillResult | None:
        """Of the `distill` stage; None until it is finished."""
        return self._of("distill", DistillResult)

    @cached_property
    def quantized(self) -> QuantizeResult | None:
        """Of the `quantize` stage of the run's own target."""
        return self._of("quantize", QuantizeResult)

    @cached_property
    def exported(self) -> ExportResult | None:
        """Of the `export` stage of the run's own target."""
        return self._of("export", ExportResult)

    @cached_property
    def verified(self) -> VerifyResult | None:
        """Of the `verify` stage of the run's own target."""
        return self._of("verify", VerifyResult)

    @cached_property
    def profiled(self) -> ProfileResult | None:
        """Of the `profile` stage of the run's own target."""
        return self._of("profile", ProfileResult)

    @property
    def shipped(self) -> str:
        """Precision of the artifact, which may differ from the one asked for."""
        return self.exported.precision if self.exported else self.precision

    @property
    def middle(self) -> float:
        """Share of each side of a picture that is shrunk for the student; 1 where it takes what its teacher takes."""
        return middle_share(self.student.input_shape[1], self.teacher.input_shape[1])

    def _of(self, stage: str, form: type[_Result]) -> _Result | None:
        found = self.stages.get(stage)
        return None if found is None else read_result(found.result, form)


def read_record(manifest: Mapping[str, Any]) -> RunRecord:
    """The record in a manifest; every stage's result is looked at.

    Raises:
        ValueError: If something is missing or of another type; its text names the place.

    Examples:
        >>> import json
        >>> from pathlib import Path
        >>> manifest = json.loads(Path("runs/teacher-rpi4/run.json").read_text())
        >>> read_record(manifest).student.name
        'kept:1'
    """
    record = read_result(manifest, RunRecord)
    sides = {len(record.teacher.preprocess.low), len(record.teacher.preprocess.high), record.teacher.input_shape[0]}
    if len(sides) != 1:
        raise ValueError("teacher.preprocess does not have one value per channel")
    for name, stage in record.stages.items():
        form = _RESULTS.get(name.partition(":")[0])
        if form is not None:
            read_result(stage.result, form)
    return record


def json_schema() -> dict[str, Any]:
    """The JSON Schema of `run.json`, stages included.

    Examples:
        >>> json_schema()["title"]
        'RunRecord'
    """
    schema = adapter_of(RunRecord).json_schema(ref_template="#/$defs/{model}")
    stages = {}
    for name, form in _RESULTS.items():
        own = adapter_of(form).json_schema(ref_template="#/$defs/{model}")
        schema["$defs"] |= own.pop("$defs", {})
        schema["$defs"][form.__name__] = own
        stages[name] = form.__name__
    record = schema["$defs"]["StageRecord"]
    schema["properties"]["stages"] = {
        "type": "object",
        "patternProperties": {f"^{name}(:.*)?$": _stage(record, form) for name, form in stages.items()},
    }
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return dict(sorted(schema.items()))


def _stage(record: Mapping[str, Any], form: str) -> dict[str, Any]:
    return {**record, "properties": {**record["properties"], "result": {"$ref": f"#/$defs/{form}"}}}


def refuse_schema(found: object, place: str) -> None:
    """Stop at a run of another version.

    Raises:
        UsageError: If its schema is not the one read here.

    Examples:
        >>> refuse_schema(SCHEMA, "runs/mine")
    """
    if found != SCHEMA:
        raise UsageError(f"{place} has schema {found}; this version reads {SCHEMA}.", "Run again with this version.")
