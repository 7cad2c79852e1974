"""`edgedafl gate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgedafl.cli.options import common
from edgedafl.errors import UsageError

if TYPE_CHECKING:
    from edgedafl.config import GateConfig

__all__ = ["command"]

_FORMATS = ("text", "json", "junit", "markdown", "github", "gitlab")


@click.command("gate")
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--max-size", help="Largest file, e.g. 1MB.")
@click.option("--max-parameters", type=int, help="Most parameters.")
@click.option("--max-macs", type=int, help="Most multiply-accumulates per image.")
@click.option("--max-ram", help="Most working memory, e.g. 512KB: tensors that are alive at the same time.")
@click.option("--max-flash", help="Largest file, as --max-size.")
@click.option("--min-fidelity", help="Least fidelity to the teacher, predicted or measured, e.g. 95%.")
@click.option("--min-agreement", help="Least synthetic agreement, e.g. 97%.")
@click.option("--min-accuracy", help="Least accuracy on labelled data.")
@click.option("--max-accuracy-drop", help="Most points below the teacher, e.g. 1%.")
@click.option("--max-latency", help="Slowest measured median, e.g. 5ms.")
@click.option("--baseline", help="Accepted model: a run, a model, a .json of --update-baseline, or git:REF.")
@click.option("--max-size-growth", help="Most growth over the baseline's file, e.g. 5%.")
@click.option("--max-slowdown", help="Most growth of the measured median over the baseline's, e.g. 10%.")
@click.option("--max-fidelity-loss", help="Most fidelity below the baseline's, e.g. 0.5%.")
@click.option("--update-baseline", is_flag=True, help="Accept this model: write its values to --baseline.")
@click.option("--history", type=click.Path(path_type=Path), help="File that gets one JSON line per gated run.")
@click.option("--config", type=click.Path(path_type=Path), help="File with [gate] or [tool.edgedafl.gate].")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "junit", "markdown", "github", "gitlab"]),
    default="text",
    show_default=True,
)
@common
def command(
    paths: tuple[Path, ...],
    config: Path | None,
    form: str,
    update_baseline: bool,
    history: Path | None,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> int:
    """Hold PATHS, run directories or any .onnx files, against limits; exit 1 when one fails.

    Limits come from [gate] in edgedafl.toml or [tool.edgedafl.gate] in pyproject.toml; flags
    replace all of them. Limits on growth, slowdown and loss are relative to --baseline; what cannot
    be compared fails, and where there is no baseline yet that is said and passes.

    \b
    Examples:
      edgedafl gate runs/teacher-rpi4 --max-size 1MB --min-fidelity 95%
      edgedafl gate student.onnx --baseline git:main --max-size-growth 5%
    """
    from edgedafl.config import GateConfig, read_project, validated

    for path in paths:
        if not path.exists():
            raise UsageError(f"{str(path)!r} does not exist.", "Give a run directory or an .onnx file.")
    project = read_project(config)
    given = {name: value for name, value in flags.items() if value is not None}
    limits, source = project.gate, project.path
    if set(given) - {"baseline"}:
        own = {} if limits.baseline is None else {"baseline": limits.baseline}
        limits, source = validated(GateConfig, {**own, **given}, "The command line"), None
    elif given:
        limits = limits.model_copy(update=given)
    form = "json" if as_json else form
    if update_baseline and len(paths) > 1:
        raise UsageError("A baseline is of one model.", "Name one, with a file of its own.")
    if update_baseline:
        return max(_accept(path, limits, source, form) for path in paths)
    return max(_gate(path, limits, source, form, history) for path in paths)


def _gate(path: Path, limits: GateConfig, source: Path | None, form: str, history: Path | None = None) -> int:
    from edgedafl.gate import entry_of, gate_measured, look_at, render
    from edgedafl.runs.history import append_entry

    found = look_at(path, limits)
    report = gate_measured(found, limits, source, path)
    if history is not None:
        append_entry(history, entry_of(path, found, report))
    click.echo(render(report, form))
    return 0 if report.passed else 1


def _accept(path: Path, limits: GateConfig, source: Path | None, form: str) -> int:
    """Write the baseline, unless a limit that is not relative fails."""
    from edgedafl.gate import RELATIVE_LIMITS, accept

    if limits.baseline is None or limits.baseline.startswith("git:"):
        raise UsageError("--update-baseline writes a file.", "Name it: --baseline edgedafl-baseline.json.")
    # What is being accepted is not held against what was accepted before.
    absolute = limits.model_copy(update=dict.fromkeys(RELATIVE_LIMITS))
    if absolute.model_dump(exclude_none=True, exclude={"baseline"}) and _gate(path, absolute, source, form):
        return 1
    accept(path, Path(limits.baseline))
    click.echo(f"{limits.baseline}: accepted {path}", err=True)
    return 0
