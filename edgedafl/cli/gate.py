"""`edgedafl gate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgedafl.cli.options import common
from edgedafl.errors import UsageError

__all__ = ["command"]


@click.command("gate")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--max-size", help="Largest file, e.g. 1MB.")
@click.option("--max-parameters", type=int, help="Most parameters.")
@click.option("--max-macs", type=int, help="Most multiply-accumulates per image.")
@click.option("--min-fidelity", help="Least fidelity to the teacher, predicted or measured, e.g. 95%.")
@click.option("--min-agreement", help="Least synthetic agreement, e.g. 97%.")
@click.option("--min-accuracy", help="Least accuracy on labelled data.")
@click.option("--max-accuracy-drop", help="Most points below the teacher, e.g. 1%.")
@click.option("--max-latency", help="Slowest measured median, e.g. 5ms.")
@click.option("--config", type=click.Path(path_type=Path), help="File with [gate] or [tool.edgedafl.gate].")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "junit", "github"]), default="text", show_default=True
)
@common
def command(path: Path, config: Path | None, form: str, as_json: bool, quiet: bool, **flags: Any) -> int:
    """Hold PATH, a run directory or any .onnx file, against limits; exit 1 when one fails.

    Limits come from [gate] in edgedafl.toml or [tool.edgedafl.gate] in pyproject.toml; flags
    replace all of them.
    """
    from edgedafl import pipeline
    from edgedafl.config import GateConfig, read_project, validated
    from edgedafl.gate import render
    from edgedafl.rundir import RunDirectory

    given = {name: value for name, value in flags.items() if value is not None}
    if given:
        limits, source = validated(GateConfig, given, "The command line"), None
    else:
        project = read_project(config)
        limits, source = project.gate, project.path
    if path.is_dir():
        report = pipeline.gate_run(RunDirectory(path), limits, source)
    elif path.exists():
        report = pipeline.gate_model(path, limits, source)
    else:
        raise UsageError(f"{str(path)!r} does not exist.", "Give a run directory or an .onnx file.")
    click.echo(render(report, "json" if as_json else form))
    return 0 if report.passed else 1
