"""What each stage leaves behind, as the next ones, the report and the gate read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgedafl.runs.latency import Estimate, MeasuredLatency, Recommendation

__all__ = [
    "AgreementReport",
    "Confused",
    "DistillResult",
    "ExportResult",
    "KeptFloat",
    "LostClass",
    "Parity",
    "ProfileResult",
    "QuantizeResult",
    "SameAnswers",
    "StageResult",
    "VerifyResult",
]


@dataclass(frozen=True)
class AgreementReport:
    """Top-1 agreement with the teacher on generated images, in [0, 1].

    Attributes:
        sets: By probe set.
        generated: Mean over the generated sets; the priors where there are none yet.
        lowest: The worst set.
    """

    sets: dict[str, float]
    generated: float
    lowest: float


@dataclass(frozen=True)
class DistillResult:
    """Of the `distill` stage.

    Attributes:
        method: The synthesizer, or why there was none.
        trained: Whether the student keeps trained weights, not its refitted ones.
        steps: Of the student.
        seconds: Of training.
        queries: Images shown to the teacher.
        agreement: Of the student with the teacher.
        recoveries: What went wrong on the way and what was done about it, in sentences.
        images_per_second: That the student learned from.
        share_of_bare_step: Of the speed of the student's bare training step here.
        warnings: What the user should check, in sentences.
    """

    method: str
    trained: bool
    steps: int
    seconds: float
    queries: int
    agreement: AgreementReport
    recoveries: tuple[str, ...] = ()
    images_per_second: float = 0.0
    share_of_bare_step: float = 0.0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeptFloat:
    """A layer that stays float.

    Attributes:
        layer: Its name.
        sensitivity: By how much the scores move when it alone is int8.
        agreement: Of the model in which it stays float.
    """

    layer: str
    sensitivity: float
    agreement: float


@dataclass(frozen=True)
class QuantizeResult:
    """Of the `quantize` stage; all but the first two belong to int8.

    Attributes:
        precision: Of the artifact: `int8`, `fp16` or `fp32`.
        agreements: Synthetic agreement with the teacher in [0, 1], by precision.
        method: Calibration method; empty without int8.
        tried: Agreement of every method tried, by name.
        agreement: Of the int8 model.
        float_agreement: Of the float model.
        max_drop: Agreement that int8 was allowed to lose.
        holds: Whether it loses no more.
        trained: Whether it went through quantization-aware training.
        kept_float: Layers that stay float, worst first.
        coverage: Share of the multiply-accumulates in integers, in [0, 1].
        float_layers: Names of layers that run in float.
        calibration: Digest of the calibration images.
        advice: What the user should know, in sentences.
        weight_bits: Mean bits of a weight in the artifact's file.
    """

    precision: str
    agreements: dict[str, float] = field(default_factory=dict)
    method: str = ""
    tried: dict[str, float] = field(default_factory=dict)
    agreement: float | None = None
    float_agreement: float | None = None
    max_drop: float | None = None
    holds: bool = True
    trained: bool = False
    kept_float: tuple[KeptFloat, ...] = ()
    coverage: float | None = None
    float_layers: tuple[str, ...] = ()
    calibration: str = ""
    advice: tuple[str, ...] = ()
    weight_bits: float = 8.0

    @property
    def in_bits(self) -> str:
        """What is said after `int8` where weights take fewer bits than eight."""
        return "" if self.weight_bits == 8 else f" with weights of {self.weight_bits:.1f} bits on average"


@dataclass(frozen=True)
class ExportResult:
    """Of the `export` stage.

    Attributes:
        exporter: Name of the plug-in.
        directory: Of the bundle, inside the run.
        archive: The same as one file.
        primary: Name of the artifact in the bundle.
        precision: Of the artifact.
        sizes: Bytes of each model file, by precision.
        float_size: Bytes of the float student.
        memory: Bytes of working memory by precision: tensors that are alive at the same time.
    """

    exporter: str
    directory: str
    archive: str
    primary: str
    precision: str
    sizes: dict[str, int]
    float_size: int
    memory: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Parity:
    """How far two sets of scores are apart.

    Attributes:
        relative_error: Largest difference over the largest magnitude of the reference.
        same_class: Share of rows with the same arg-max, in [0, 1].
        rows: How many rows were compared.
    """

    relative_error: float
    same_class: float
    rows: int


@dataclass(frozen=True)
class SameAnswers:
    """Answers equal to the teacher's on labelled images.

    Attributes:
        same: How many are equal.
        images: Of how many.
    """

    same: int
    images: int


@dataclass(frozen=True)
class LostClass:
    """A class of which an artifact knows fewer pictures than the teacher.

    Attributes:
        name: Of the class, or its number.
        images: Labelled pictures of it.
        teacher: Share that the teacher answers right, in [0, 1].
        artifact: Share that the artifact answers right.
        taken_for: The class that the artifact answers most often instead.
    """

    name: str
    images: int
    teacher: float
    artifact: float
    taken_for: str


@dataclass(frozen=True)
class Confused:
    """One class answered for another.

    Attributes:
        name: Of the labelled class.
        answered: The class that is answered instead.
        teacher: Pictures of which the teacher does so.
        artifact: Pictures of which the artifact does so.
    """

    name: str
    answered: str
    teacher: int
    artifact: int


@dataclass(frozen=True)
class VerifyResult:
    """Of the `verify` stage; each mapping is by precision, but for `parity` and `built`.

    Attributes:
        agreement: With the teacher on generated images, in [0, 1].
        parity: Scores compared, by what was compared.
        accuracy: On labelled images, in [0, 1]; the teacher's under `teacher`.
        fidelity: Answers equal to the teacher's on labelled images.
        lost: Classes that lose most, worst first.
        confusions: Pairs of classes confused most often.
        built: What making the device's own form of each model file told, by file.
    """

    agreement: dict[str, float]
    parity: dict[str, Parity]
    accuracy: dict[str, float] = field(default_factory=dict)
    fidelity: dict[str, SameAnswers] = field(default_factory=dict)
    lost: dict[str, tuple[LostClass, ...]] = field(default_factory=dict)
    confusions: dict[str, tuple[Confused, ...]] = field(default_factory=dict)
    built: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ProfileResult:
    """Of the `profile` stage.

    Attributes:
        estimate: For the target, where it is not attached.
        measured: On a device, this machine included.
        failed: Why nothing could be measured; empty where nothing failed.
        hint: What to do about it.
        recommendation: The precision to deploy, where several were measured.
    """

    estimate: Estimate | None = None
    measured: MeasuredLatency | None = None
    failed: str = ""
    hint: str = ""
    recommendation: Recommendation | None = None

    def is_estimated(self, precision: str) -> bool:
        """Whether the target's latency is an estimate: none was measured, or only on this machine and not on it."""
        return self.estimate is not None and (self.timed(precision) is None or self.here)

    @property
    def here(self) -> bool:
        """Whether the measurement is of this machine."""
        return self.measured is not None and self.measured.device == "local"

    def timed(self, precision: str) -> MeasuredLatency | None:
        """The measurement, where its times of a precision are those of a device."""
        found = self.measured
        return None if found is None or found.kind == "emulated" or precision not in found.summaries else found


StageResult = DistillResult | QuantizeResult | ExportResult | VerifyResult | ProfileResult
