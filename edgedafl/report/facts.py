"""Names and values about a run: how the artifact came to be, and on what."""

from __future__ import annotations

from collections.abc import Iterator

from edgedafl.runs import EMULATED, DistillResult, ProfileResult, QuantizeResult, RunDirectory, RunRecord
from edgedafl.units import format_bytes, format_count, format_duration

__all__ = ["facts_of", "query_facts"]

Fact = tuple[str, str]
_ROWS = 6


def facts_of(record: RunRecord) -> list[Fact]:
    """Of the teacher, the student, its training and quantization, and the measurement.

    Examples:
        >>> from edgedafl.runs import RunDirectory
        >>> [name for name, _ in facts_of(RunDirectory("runs/teacher-rpi4").record())][:3]
        ['Teacher', 'Input range', 'Student']
    """
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return [
        *_models(record),
        *_training(record.distilled),
        *_integers(record.quantized),
        *_times(record.profiled),
        ("Versions", versions),
        ("Seed", str(record.config.seed)),
    ]


def _models(record: RunRecord) -> Iterator[Fact]:
    teacher, student, pictures = record.teacher, record.student, record.pictures
    sides = "x".join(str(side) for side in teacher.input_shape)
    yield "Teacher", f"{teacher.name}, {teacher.task}, {teacher.num_classes} classes, input {sides}"
    known = teacher.preprocess
    yield "Input range", f"{known.low[0]:.4g} to {known.high[0]:.4g} ({known.origin})"
    yield "Student", f"{student.name}, {format_count(student.parameters)} parameters"
    if pictures is not None:
        bad = f", {pictures.unreadable} files were not pictures" if pictures.unreadable else ""
        yield "Your pictures", f"{pictures.used} of {pictures.found} in {pictures.source}{bad}"


def _training(found: DistillResult | None) -> Iterator[Fact]:
    if found is None:
        return
    seconds, queries = format_duration(found.seconds), format_count(found.queries)
    yield "Distillation", f"{found.method}, {found.steps} steps in {seconds}, {queries} teacher queries"
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in found.agreement.sets.items())
    yield "Synthetic agreement", shares


def _integers(found: QuantizeResult | None) -> Iterator[Fact]:
    if found is not None and found.method:
        share = f"{100 * (found.coverage or 0):.1f} % of the MACs in integers"
        yield "Quantization", f"{found.method} calibration on generated images{found.in_bits}, {share}"


def _times(found: ProfileResult | None) -> Iterator[Fact]:
    if found is None:
        return
    if found.estimate is not None:
        known = found.estimate
        low, middle, high = (format_duration(ns / 1e9) for ns in (known.low, known.median, known.high))
        text = f"estimate, not measured: {middle} ({low} to {high}, tier {known.tier})"
        yield f"Latency on {known.device}", text
    if found.measured is None:
        return
    measured, environment = found.measured, found.measured.environment
    title = "Emulated on (these times say nothing about a device)" if measured.kind == EMULATED else "Measured on"
    yield title, f"{environment.processor}, {environment.runtime}, {environment.threads} thread(s), batch 1"
    counts = ", ".join(f"{name} {summary.count}" for name, summary in measured.summaries.items())
    yield "Samples", f"{counts}; warm-up {measured.warm_up_seconds or 0:.1f} s"
    if measured.memory_bytes:
        grown = ", ".join(f"{name} {format_bytes(size)}" for name, size in measured.memory_bytes.items())
        yield (
            "Memory there",
            f"{grown}: what opening and running the model adds to a process, its runtime's own included",
        )


def query_facts(record: RunRecord, run: RunDirectory) -> list[Fact]:
    """Agreement against queries, at a few moments, where the teacher only answers.

    Examples:
        >>> from edgedafl.runs import RunDirectory
        >>> run = RunDirectory("runs/teacher-rpi4")
        >>> query_facts(run.record(), run)  # this teacher gives gradients
        []
    """
    if record.teacher.access == "gradient":
        return []
    rows = [(m.queries, m.agreement.generated) for m in run.read_metrics() if m.agreement is not None]
    done = record.distilled
    last = [(done.queries, done.agreement.generated)] if done else []
    chosen = [*rows[:: max(1, len(rows) // _ROWS)], *last]
    text = ", ".join(f"{format_count(queries)}: {100 * share:.0f} %" for queries, share in chosen)
    return [("Access", record.teacher.access), ("Agreement by queries", text)] if text else []
