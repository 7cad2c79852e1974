"""`edgedafl export`."""

from __future__ import annotations

from pathlib import Path

import click

from edgedafl.cli.options import common, run_directory
from edgedafl.cli.render import print_json

__all__ = ["command"]


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--target", help="For which target; the run's own by default.")
@click.option("--precision", type=click.Choice(["auto", "int8", "fp16", "fp32"]), default="auto", show_default=True)
@click.option("--exporter", help="Another exporter than the target's.")
@common
def command(run: Path, target: str | None, precision: str, exporter: str | None, as_json: bool, quiet: bool) -> int:
    """Write a bundle of RUN's student for a target.

    \b
    Example:
      edgedafl export runs/teacher-rpi4 --target jetson
    """
    directory = run_directory(run)
    from edgedafl import pipeline
    from edgedafl.runs import result_to_dict
    from edgedafl.targets import find_target
    from edgedafl.units import format_bytes

    chosen = find_target(target) if target else pipeline.run_target(directory)
    kind = chosen.precision if precision == "auto" else precision
    result = pipeline.export(directory, target=chosen, precision=kind, exporter=exporter)
    if as_json:
        print_json(result_to_dict(result))
        return 0
    sizes = ", ".join(f"{name} {format_bytes(size)}" for name, size in result.sizes.items())
    click.echo(f"Bundle: {run / result.directory} ({sizes})")
    click.echo(f"Archive: {run / result.archive}")
    return 0
