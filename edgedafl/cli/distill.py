"""`edgedafl distill`."""

from __future__ import annotations

from typing import Any

import click

from edgedafl.cli.options import common, merged_config, training
from edgedafl.cli.render import print_json, run_display
from edgedafl.cli.sections import Sectioned
from edgedafl.cli.start import load_plan, print_plan

__all__ = ["command"]


@click.command("distill", cls=Sectioned)
@training
@common
def command(teacher: str, resume: bool, force: bool, dry_run: bool, as_json: bool, quiet: bool, **flags: Any) -> int:
    """Teach a student of TEACHER without data; writes student.onnx and calibration.npz.

    \b
    Example:
      edgedafl distill teacher.onnx --student kept:0.5 --time-budget 10m
    """
    config = merged_config(teacher, flags)
    from edgedafl import pipeline
    from edgedafl.runs import result_to_dict

    with run_display(quiet) as display:
        plan = load_plan(teacher, config, display, quiet=quiet)
        if dry_run:
            display.close()
            print_plan(plan, as_json=as_json)
            return 0
        display.stage("distill")
        result = pipeline.distill(plan, resume=resume, force=force, on_progress=display.progress)
    if result is None:
        return 0  # another process of this world reports
    if as_json:
        print_json(result_to_dict(result))
        return 0
    student = plan.student.spec
    click.echo(
        f"{student.name}: {student.parameters} parameters, "
        f"synthetic agreement {100 * result.agreement.generated:.2f} % (not accuracy)"
    )
    rate, share = result.images_per_second, result.share_of_bare_step
    click.echo(f"{rate:,.0f} student images per second, {share:.0%} of the student's bare training step here")
    click.echo(f"Student: {config.output}/student.onnx")
    return 0
