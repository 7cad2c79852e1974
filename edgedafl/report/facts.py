"""Names and values about a run: how the artifact came to be, and on what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgedafl.rundir import RunDirectory
from edgedafl.units import format_count, format_duration

__all__ = ["facts_of", "query_facts"]

Fact = tuple[str, str]


def facts_of(manifest: Mapping[str, Any], results: Mapping[str, Any]) -> list[Fact]:
    """Of the teacher, the student, its training and quantization, and the measurement.

    Args:
        manifest: Of the run.
        results: Of its stages by name.
    """
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    return [
        *_models(manifest),
        *_training(results.get("distill", {})),
        *_integers(results.get("quantize", {})),
        *_times(results.get("profile", {})),
        ("Versions", versions),
        ("Seed", str(manifest["config"]["seed"])),
    ]


def _models(manifest: Mapping[str, Any]) -> Iterator[Fact]:
    teacher, student = manifest["teacher"], manifest["student"]
    sides = "x".join(str(side) for side in teacher["input_shape"])
    yield "Teacher", f"{teacher['name']}, {teacher['task']}, {teacher['num_classes']} classes, input {sides}"
    known = teacher["preprocess"]
    yield "Input range", f"{known['low'][0]:.4g} to {known['high'][0]:.4g} ({known['origin']})"
    yield "Student", f"{student['name']}, {format_count(student['parameters'])} parameters"
    pictures = manifest.get("pictures")
    if pictures:
        bad = f", {pictures['unreadable']} files were not pictures" if pictures["unreadable"] else ""
        yield "Your pictures", f"{pictures['used']} of {pictures['found']} in {pictures['source']}{bad}"


def _training(distill: Mapping[str, Any]) -> Iterator[Fact]:
    if not distill:
        return
    seconds, queries = format_duration(distill["seconds"]), format_count(distill["queries"])
    yield "Distillation", f"{distill['method']}, {distill['steps']} steps in {seconds}, {queries} teacher queries"
    sets = distill["agreement"]["sets"]
    yield "Synthetic agreement", ", ".join(f"{name} {100 * share:.1f} %" for name, share in sets.items())


def _integers(quantize: Mapping[str, Any]) -> Iterator[Fact]:
    if quantize.get("method"):
        share = 100 * quantize.get("coverage", 0)
        yield (
            "Quantization",
            f"{quantize['method']} calibration on generated images, {share:.1f} % of the MACs in integers",
        )


def _times(profile: Mapping[str, Any]) -> Iterator[Fact]:
    estimate, measured = profile.get("estimate"), profile.get("measured")
    if estimate:
        low, middle, high = (format_duration(estimate[key] / 1e9) for key in ("low", "median", "high"))
        text = f"estimate, not measured: {middle} ({low} to {high}, tier {estimate['tier']})"
        yield f"Latency on {estimate['device']}", text
    if not measured:
        return
    environment = measured["environment"]
    place = environment.get("cpu") or environment.get("board")
    title = "Emulated on (no device's times)" if measured["kind"] == "emulated" else "Measured on"
    yield title, f"{place}, {environment['runtime']}, {environment['threads']} thread(s), batch 1"
    counts = ", ".join(f"{name} {summary['count']}" for name, summary in measured["summaries"].items())
    yield "Samples", f"{counts}; warm-up {measured['warm_up_seconds']:.1f} s"


def query_facts(manifest: Mapping[str, Any], run: RunDirectory) -> list[Fact]:
    """Agreement against queries, at a few moments, where the teacher only answers."""
    if manifest["teacher"]["access"] == "gradient":
        return []
    rows = [(m["queries"], m["agreement"]["generated"]) for m in run.read_metrics() if m.get("agreement")]
    done = manifest.get("stages", {}).get("distill", {}).get("result")
    last = [(done["queries"], done["agreement"]["generated"])] if done else []
    chosen = [*rows[:: max(1, len(rows) // 6)], *last]
    text = ", ".join(f"{format_count(queries)}: {100 * share:.0f} %" for queries, share in chosen)
    return [("Access", manifest["teacher"]["access"]), ("Agreement by queries", text)] if text else []
