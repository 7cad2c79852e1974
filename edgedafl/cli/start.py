"""What `compress` and `distill` begin with."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edgedafl.cli.render import RunDisplay, print_json, print_table

if TYPE_CHECKING:
    from edgedafl.config import CompressConfig
    from edgedafl.runs import Band
    from edgedafl.stages import Plan

__all__ = ["load_plan", "print_plan"]

_AFTER_TRAINING = 60.0
"""Seconds of quantizing, verifying and profiling a small network; more for large images."""


def load_plan(teacher: str, config: CompressConfig, display: RunDisplay, *, quiet: bool) -> Plan:
    """Prepare the run, and warn of what the teacher's first answers show.

    Examples:
        >>> from edgedafl.cli.render import run_display
        >>> from edgedafl.config import CompressConfig
        >>> config = CompressConfig(student="lenet5-half")
        >>> with run_display(quiet=True) as display:
        ...     plan = load_plan("examples/mnist/teacher.onnx", config, display, quiet=True)
        >>> plan.student.spec.name
        'lenet5-half'
    """
    from edgedafl import pipeline

    display.stage("teacher")
    plan = pipeline.prepare(teacher, config, display.stage)
    if plan.preflight.warning and not quiet:
        click.echo(f"Warning: {plan.preflight.warning}", err=True)
    return plan


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """What a run would do, for `--dry-run`; nothing has been written.

    Examples:
        >>> from edgedafl.config import CompressConfig
        >>> from edgedafl.stages import prepare
        >>> plan = prepare("examples/mnist/teacher.onnx", CompressConfig(student="lenet5-half"))
        >>> print_plan(plan, as_json=True)  # doctest: +ELLIPSIS
        {
          "teacher": {...
    """
    ladder = plan.ladder.candidates if plan.ladder else ()
    training = (plan.seconds or 0.0) if plan.trains else 0.0
    if as_json:
        print_json(
            {
                "teacher": plan.teacher.spec.to_dict(),
                "config": {**plan.config.model_dump(mode="json"), "seconds": plan.config.seconds},
                "target": plan.target.name,
                "precision": plan.precision,
                "student": plan.student.spec.to_dict(),
                "trains": plan.trains,
                "training_seconds": training,
                "candidates": [asdict(candidate) for candidate in ladder],
            }
        )
        return
    _print_teacher(plan)
    if ladder:
        _print_candidates(plan)
    spec = plan.student.spec
    until = "training is limited by steps" if plan.config.steps else _minutes(training + _AFTER_TRAINING)
    what = f"trained for at most {training:.0f} s" if training else "not trained"
    click.echo(f"Would take {spec.name} ({spec.parameters:,} weights), {what}, as {plan.precision}; {until}.")
    click.echo(f"Would write {plan.config.output}.")


def _minutes(seconds: float) -> str:
    return f"about {max(1, round(seconds / 60))} min in all on a machine like this"


def _print_teacher(plan: Plan) -> None:
    from edgedafl.units import format_count

    spec = plan.teacher.spec
    sides = "x".join(str(side) for side in spec.input_shape)
    known = spec.preprocess
    rows = [
        ["teacher", f"{plan.source}: {spec.access}, {spec.task}, {spec.num_classes} classes"],
        ["input", f"{sides}, pixels become {known.low[0]:.4g} to {known.high[0]:.4g} ({known.origin})"],
        ["arithmetic", f"{format_count(spec.macs)} MACs per image" if spec.macs else "not known"],
        ["target", plan.target.title],
    ]
    print_table(["", ""], rows)


def _print_candidates(plan: Plan) -> None:
    from edgedafl.units import format_bytes, format_count, format_duration

    def percent(band: Band | None) -> str:
        return "-" if band is None else f"{100 * band.fidelity:.1f} %"

    assert plan.ladder is not None
    rows = [
        [
            "begins with" if place == plan.ladder.chosen else "",
            c.title,
            format_bytes(c.size),
            format_count(c.macs),
            "-" if c.latency is None else format_duration(c.latency),
            percent(c.untrained),
            percent(c.expected),
        ]
        for place, c in enumerate(plan.ladder.candidates)
    ]
    print_table(["", "candidate", "size", "MACs", "latency", "fidelity untrained", "after training"], rows)
