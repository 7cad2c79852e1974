"""What of a run a tracker keeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgedafl.gate import measured_of_record
from edgedafl.runs import Progress, RunDirectory, RunRecord

__all__ = ["RunFigures", "figures_of", "progress_values"]


@dataclass(frozen=True)
class RunFigures:
    """A run in the form in which trackers keep runs.

    Attributes:
        name: Of the run's folder.
        settings: What it was asked for and what was chosen, as text.
        values: Its figures by name, with the unit in the name; what is not known is left out.
        kinds: How a value is known, by name, e.g. `predicted` for `fidelity`.
        progress: While it was trained, oldest first.
        files: Its report and its sheet of generated images, as far as they are there.
    """

    name: str
    settings: dict[str, str]
    values: dict[str, float]
    kinds: dict[str, str]
    progress: tuple[Progress, ...]
    files: tuple[Path, ...]


def figures_of(run: RunDirectory) -> RunFigures:
    """What a run knows of its artifact.

    Raises:
        UsageError: If there is no run.

    Examples:
        >>> from edgedafl import RunDirectory
        >>> figures_of(RunDirectory("runs/teacher-rpi4")).values["size_bytes"] < 100_000
        True
    """
    record = run.record()
    measured = measured_of_record(record)
    accuracies = record.verified.accuracy if record.verified else {}
    known = {
        "size_bytes": measured.size,
        "parameters": measured.parameters,
        "macs": measured.macs,
        "ram_bytes": measured.ram,
        "latency_seconds": measured.latency,
        "fidelity": measured.fidelity,
        "synthetic_agreement": measured.agreement,
        "accuracy": measured.accuracy,
        "teacher_accuracy": accuracies.get("teacher"),
        "teacher_size_bytes": record.teacher.size or None,
        "distillation_seconds": record.distilled.seconds if record.distilled else None,
    }
    kinds = {"fidelity": measured.fidelity_kind, "latency_seconds": measured.latency_place}
    files = [run.path / "report.html", run.samples]
    return RunFigures(
        name=run.path.resolve().name,
        settings=_settings(record),
        values={name: float(value) for name, value in known.items() if value is not None},
        kinds={name: kind for name, kind in kinds.items() if kind},
        progress=tuple(run.read_metrics()),
        files=tuple(file for file in files if file.is_file()),
    )


def progress_values(progress: Progress) -> dict[str, float]:
    """A report of training as values by name.

    Examples:
        >>> progress_values(Progress(10, 0.5, 30.0, {"distillation": 0.25}, None, 100.0, 0))
        {'loss/distillation': 0.25, 'training/images_per_second': 100.0}
    """
    values = {f"loss/{name}": value for name, value in progress.losses.items()}
    values["training/images_per_second"] = progress.images_per_second
    if progress.agreement is not None:
        values["training/synthetic_agreement"] = progress.agreement.generated
    if progress.fidelity is not None:
        values["training/predicted_fidelity"] = progress.fidelity
    return values


def _settings(record: RunRecord) -> dict[str, str]:
    return {
        "teacher": record.teacher.name,
        "student": record.student.name,
        "target": record.target.name,
        "precision": record.shipped,
        "method": record.distilled.method if record.distilled else "",
        "seed": str(record.config.seed),
        "edgedafl": record.versions.get("edgedafl", ""),
        "identity": record.identity,
    }
