"""What `compress` and `distill` begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgedafl.cli.render import RunDisplay, print_json

if TYPE_CHECKING:
    from edgedafl.stages import Plan

__all__ = ["load_plan", "print_configuration"]


def print_configuration(teacher: str, config: Any) -> None:
    """The resolved configuration, for `--dry-run`."""
    print_json({"teacher": teacher, **config.model_dump(mode="json"), "seconds": config.seconds})


def load_plan(teacher: str, config: Any, display: RunDisplay, *, quiet: bool) -> Plan:
    """Prepare the run, and warn of what the teacher's first answers show."""
    from edgedafl import pipeline

    display.stage("teacher")
    plan = pipeline.prepare(teacher, config, display.stage)
    if plan.preflight.warning and not quiet:
        click.echo(f"Warning: {plan.preflight.warning}", err=True)
    return plan
