"""What a gate asks about a run, a model, or what was accepted before."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from edgedafl.config import GateConfig
from edgedafl.errors import UsageError
from edgedafl.files import write_atomic
from edgedafl.gate.committed import committed_file, committed_size, head_of, require_commit
from edgedafl.gate.limits import Measured, check_limits
from edgedafl.gate.relative import Baseline, check_growth, has_relative_limits
from edgedafl.graph.weigh import weigh
from edgedafl.runs import GateReport, ProfileResult, RunDirectory, RunRecord
from edgedafl.runs.history import HistoryEntry

__all__ = [
    "BASELINE",
    "accept",
    "baseline_of",
    "entry_of",
    "gate_measured",
    "gate_model",
    "gate_run",
    "look_at",
    "measured_model",
    "measured_of",
    "measured_of_record",
]

BASELINE = "edgedafl-baseline.json"
"""Name of the file that keeps an accepted run's values."""

_GIT = "git:"


def gate_run(run: RunDirectory, limits: GateConfig, source: Path | None) -> GateReport:
    """Hold a run's artifact against limits, and against a baseline where one is named and there.

    Raises:
        UsageError: If there is no limit, or a relative one without a baseline.

    Examples:
        >>> gate_run(RunDirectory("runs/teacher-rpi4"), GateConfig(max_size="1MB", min_fidelity="90%"), None).passed
        True
    """
    return gate_measured(measured_of(run), limits, source, run.path)


def gate_model(path: Path, limits: GateConfig, source: Path | None) -> GateReport:
    """Hold any ONNX file against limits on size, parameters and MACs, and against a baseline likewise.

    Raises:
        UsageError: If there is no limit, or a relative one without a baseline.
        UnsupportedModelError: If it is not an ONNX model.

    Examples:
        >>> gate_model(Path("examples/mnist/teacher.onnx"), GateConfig(max_size="1MB"), None).passed
        True
    """
    return gate_measured(measured_model(path, limits), limits, source, path)


def look_at(path: Path, limits: GateConfig) -> Measured:
    """Values of a run directory, or those of a model that its limits ask for.

    Raises:
        UsageError: If it is neither.
        UnsupportedModelError: If it is not an ONNX model.

    Examples:
        >>> look_at(Path("examples/mnist/teacher.onnx"), GateConfig(max_macs=10**6)).macs
        416520
    """
    return measured_of(RunDirectory(path)) if path.is_dir() else measured_model(path, limits)


def gate_measured(measured: Measured, limits: GateConfig, source: Path | None, subject: Path) -> GateReport:
    """Hold values against limits, and against a baseline where one is named and there.

    Args:
        measured: The values.
        limits: The limits.
        source: The file that they came from; None for flags.
        subject: The run or model, whose earlier form `git:REF` names.

    Raises:
        UsageError: If there is no limit, or a relative one without a baseline.

    Examples:
        >>> measured, limits = Measured(size=900_000), GateConfig(max_size="1MB")
        >>> gate_measured(measured, limits, None, Path("model.onnx")).passed
        True
    """
    found = check_limits(limits, measured, subject=str(subject), source=source)
    if not has_relative_limits(limits):
        return found
    if limits.baseline is None:
        raise UsageError("A limit on growth, slowdown or loss needs a baseline.", "Say it with --baseline.")
    baseline = baseline_of(limits.baseline, subject)
    if baseline is None:
        return replace(found, notes=(f"There is no baseline {limits.baseline!r} yet: nothing is compared with it.",))
    grown = check_growth(limits, measured, baseline, subject=str(subject))
    return replace(found, verdicts=(*found.verdicts, *grown.verdicts))


def measured_of(run: RunDirectory) -> Measured:
    """Values of a run's artifact.

    Examples:
        >>> measured_of(RunDirectory("runs/teacher-rpi4")).parameters
        61706
    """
    return measured_of_record(run.record())


def measured_model(path: Path, limits: GateConfig) -> Measured:
    """Values of any ONNX file that its limits ask for; weights are read only where they have to be.

    Raises:
        UsageError: If there is no such file.
        UnsupportedModelError: If it is not an ONNX model.

    Examples:
        >>> measured_model(Path("examples/mnist/teacher.onnx"), GateConfig(max_parameters=100_000)).parameters
        61706
    """
    if limits.max_parameters is None and limits.max_macs is None and limits.max_ram is None:
        return Measured(size=weigh(path))
    from edgedafl.graph.facts import facts_of
    from edgedafl.graph.load import load_onnx

    file = load_onnx(path)
    macs = None
    if limits.max_macs is not None:
        from edgedafl.graph.cost import count_macs
        from edgedafl.graph.image_input import find_image_input

        macs = count_macs(file.model, find_image_input(file.model))
    ram = None
    if limits.max_ram is not None:
        from edgedafl.graph.peak_memory import peak_memory

        ram = peak_memory(file.model).peak
    return Measured(size=file.size, parameters=facts_of(file.model).parameters, macs=macs, ram=ram)


def baseline_of(named: str, subject: Path) -> Baseline | None:
    """What was accepted before; None where there is nothing yet.

    Args:
        named: A run directory, an .onnx file, a .json that `write_baseline` wrote, or `git:REF`: the same model file
            at that commit, or for runs its `edgedafl-baseline.json`.
        subject: What is judged now.

    Raises:
        UsageError: If it is none of these, or there is no such commit.
        EnvironmentMissingError: If git is needed and not there.

    Examples:
        >>> found = baseline_of("examples/mnist/teacher.onnx", Path("student.onnx"))
        >>> found.measured.size == Path("examples/mnist/teacher.onnx").stat().st_size
        True
    """
    if named.startswith(_GIT):
        return _from_git(named.removeprefix(_GIT), subject)
    path = Path(named)
    if path.is_dir():
        return Baseline(named, measured_of(RunDirectory(path)))
    if not path.exists():
        return None
    if path.suffix == ".json":
        return _read(path.read_text("utf-8"), named)
    return Baseline(named, Measured(size=weigh(path)))


def accept(path: Path, baseline: Path) -> None:
    """Keep the values of a run or a model for later gates.

    Raises:
        UsageError: If the baseline is not called .json.

    Examples:
        >>> import tempfile
        >>> baseline = Path(tempfile.mkdtemp()) / "accepted.json"
        >>> accept(Path("examples/mnist/teacher.onnx"), baseline)
        >>> baseline_of(str(baseline), Path("student.onnx")).measured.size > 0
        True
    """
    if baseline.suffix != ".json":
        raise UsageError(
            f"A baseline is written to a .json file; {str(baseline)!r} is not one.",
            f"Name it {BASELINE}, for example.",
        )
    measured = measured_of(RunDirectory(path)) if path.is_dir() else Measured(size=weigh(path))
    write_atomic(baseline, json.dumps(Baseline(str(baseline), measured).to_dict(), indent=2) + "\n")


def _read(text: str, origin: str) -> Baseline:
    try:
        return Baseline.from_dict(json.loads(text), origin)
    except ValueError as error:
        raise UsageError(f"{origin} is not a baseline.", "Write one with --update-baseline.") from error


def _from_git(ref: str, subject: Path) -> Baseline | None:
    """The same file at another commit."""
    folder = subject.resolve().parent
    require_commit(ref, folder)
    if subject.is_dir():
        text = committed_file(ref, folder, BASELINE)
        return None if text is None else _read(text.decode("utf-8", "replace"), f"{BASELINE} at {ref}")
    size = committed_size(ref, subject)
    return None if size is None else Baseline(f"{subject.resolve().name} at {ref}", Measured(size=size))


def entry_of(path: Path, found: Measured, report: GateReport) -> HistoryEntry:
    """A line of a history for a gated run or model.

    Args:
        path: The run or model.
        found: Its values.
        report: How its limits fared.

    Examples:
        >>> model, limits = Path("examples/mnist/teacher.onnx"), GateConfig(max_size="1MB")
        >>> entry_of(model, look_at(model, limits), gate_model(model, limits, None)).passed
        True
    """
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    return HistoryEntry(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=head_of(folder),
        subject=str(path),
        passed=report.passed,
        failed=tuple(v.name for v in report.verdicts if not v.passed),
        size=found.size,
        parameters=found.parameters,
        macs=found.macs,
        ram=found.ram,
        fidelity=found.fidelity,
        fidelity_kind=found.fidelity_kind,
        accuracy=found.accuracy,
        latency=found.latency,
        latency_place=found.latency_place,
    )


def measured_of_record(record: RunRecord) -> Measured:
    """Values of the artifact of a run that was read already.

    Examples:
        >>> measured_of_record(RunDirectory("runs/teacher-rpi4").record()).parameters
        61706
    """
    precision, verified, profiled = record.shipped, record.verified, record.profiled or ProfileResult()
    accuracies = verified.accuracy if verified else {}
    accuracy, teacher = accuracies.get(precision), accuracies.get("teacher")
    band = record.verdict.band if record.verdict else None
    timed = profiled.timed(precision)
    summary = timed.summaries[precision] if timed else None
    return Measured(
        size=record.exported.sizes.get(precision) if record.exported else None,
        parameters=record.student.parameters,
        macs=record.student.macs,
        ram=record.exported.memory.get(precision) if record.exported else None,
        agreement=verified.agreement.get(precision) if verified else None,
        accuracy=accuracy,
        accuracy_drop=None if accuracy is None or teacher is None else teacher - accuracy,
        fidelity=None if band is None else band.fidelity,
        fidelity_kind="" if band is None else band.kind,
        latency=summary.median / 1e9 if summary else None,
        latency_low=summary.median_low / 1e9 if summary else None,
        latency_high=summary.median_high / 1e9 if summary else None,
        latency_place=f"{timed.place}, {precision}" if timed else "",
        latency_is_estimate=timed is None and profiled.estimate is not None,
    )
