"""`edgedafl quantize`."""

from __future__ import annotations

from pathlib import Path

import click

from edgedafl.cli.options import common, run_directory
from edgedafl.cli.render import print_json

__all__ = ["command"]


@click.command("quantize")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--target", help="Whose integer scheme; the run's own by default.")
@click.option("--precision", type=click.Choice(["int8", "fp16", "fp32"]), default="int8", show_default=True)
@common
def command(run: Path, target: str | None, precision: str, as_json: bool, quiet: bool) -> int:
    """Quantize RUN's student on its generated calibration images."""
    directory = run_directory(run)
    from edgedafl import pipeline
    from edgedafl.targets import find_target

    chosen = find_target(target) if target else pipeline.run_target(directory)
    result = pipeline.quantize(directory, target=chosen, precision=precision)
    if as_json:
        print_json(result)
    elif "method" in result:
        click.echo(
            f"{chosen.name}: int8 by {result['method']} calibration, agreement with the teacher "
            f"{100 * result['agreement']:.2f} % (float {100 * result['float_agreement']:.2f} %)"
        )
    else:
        click.echo(f"{chosen.name}: {precision} written")
    return 0
