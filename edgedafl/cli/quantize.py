"""`edgedafl quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgedafl.cli.options import common, run_directory
from edgedafl.cli.render import print_json, print_table

__all__ = ["command"]


@click.command("quantize")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--target", help="Whose integer scheme; the run's own by default.")
@click.option("--precision", type=click.Choice(["int8", "fp16", "fp32"]), default="int8", show_default=True)
@click.option("--max-drop", help="Agreement that int8 may lose against fp32, e.g. 0.5%; the run's own by default.")
@common
def command(run: Path, target: str | None, precision: str, max_drop: str | None, as_json: bool, quiet: bool) -> int:
    """Quantize RUN's student on its generated calibration images."""
    directory = run_directory(run)
    from edgedafl import pipeline
    from edgedafl.targets import find_target
    from edgedafl.units import parse_share

    chosen = find_target(target) if target else pipeline.run_target(directory)
    allowed = None if max_drop is None else parse_share(max_drop)
    result = pipeline.quantize(directory, target=chosen, precision=precision, max_drop=allowed)
    if as_json:
        print_json(result)
    elif "method" in result:
        _show(chosen.name, result)
    else:
        click.echo(f"{chosen.name}: {precision} written")
    return 0


def _show(target: str, result: dict[str, Any]) -> None:
    click.echo(
        f"{target}: int8 by {result['method']} calibration, agreement with the teacher "
        f"{100 * result['agreement']:.2f} % (float {100 * result['float_agreement']:.2f} %), "
        f"{100 * result['coverage']:.1f} % of the MACs run in integers"
    )
    print_table(["tried", "agreement"], [[name, f"{100 * value:.2f} %"] for name, value in result["tried"].items()])
    for row in result["kept_float"]:
        click.echo(f"stays float: {row['layer']} (scores move by {row['sensitivity']:.3g} when it alone is int8)")
    if not result["holds"]:
        click.echo(f"The allowed drop of {100 * result['max_drop']:.2f} points does not hold in integers.", err=True)
    for text in result["advice"]:
        click.echo(f"Note: {text}")
