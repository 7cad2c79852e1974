"""`edgedafl compress`."""

from __future__ import annotations

from typing import Any

import click

from edgedafl.cli.options import common, is_verbose, merged_config, training
from edgedafl.cli.render import print_json, print_summary, run_display
from edgedafl.cli.sections import Sectioned
from edgedafl.cli.start import load_plan, print_plan

__all__ = ["command", "run_compress"]


@click.command("compress", cls=Sectioned)
@training
@common
def command(teacher: str, resume: bool, force: bool, dry_run: bool, as_json: bool, quiet: bool, **flags: Any) -> int:
    """Compress TEACHER for a device.

    TEACHER is an .onnx file, a package.module:factory, or (with --trust) a PyTorch file; a served
    model is named by --teacher-url instead.

    Distils a small student without data, quantizes it for the target, exports a bundle, verifies
    it, profiles it and writes a report. Limits under [gate] in edgedafl.toml are checked at the
    end.

    \b
    Examples:
      edgedafl compress teacher.onnx --target jetson
      edgedafl compress teacher.onnx --target rpi5 --images photographs/ --max-latency 20ms
    """
    return run_compress(teacher, flags, resume=resume, force=force, dry_run=dry_run, as_json=as_json, quiet=quiet)


def run_compress(
    teacher: str, flags: dict[str, Any], *, resume: bool, force: bool, dry_run: bool, as_json: bool, quiet: bool
) -> int:
    """All stages from a teacher to the report; returns the exit code.

    Examples:
        >>> others = {"resume": False, "force": False, "dry_run": True, "as_json": False, "quiet": False}
        >>> run_compress("model.onnx", {"target": "rpi4"}, **others)  # doctest: +SKIP
    """
    project_file = flags["config"]
    config = merged_config(teacher, flags)
    from edgedafl import pipeline
    from edgedafl.config import read_project
    from edgedafl.gate import render

    project = read_project(project_file)
    limits = project.gate if project.gate.model_dump(exclude_none=True) else None
    with run_display(quiet) as display:
        plan = load_plan(teacher, config, display, quiet=quiet)
        if dry_run:
            display.close()
            print_plan(plan, as_json=as_json)
            return 0
        done = pipeline.compress(
            plan,
            resume=resume,
            force=force,
            on_progress=display.progress,
            on_message=display.stage,
            limits=limits,
            limits_file=project.path,
        )
    if as_json:
        print_json(done.run.manifest())
    else:
        print_summary(done.summary, str(done.run.path), detail=is_verbose())
        if done.gate:
            click.echo(render(done.gate))
    return 0 if done.verdict.holds and (done.gate is None or done.gate.passed) else 1
