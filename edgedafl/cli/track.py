"""`edgedafl track`."""

from __future__ import annotations

from pathlib import Path

import click

from edgedafl.cli.options import common, run_directory
from edgedafl.cli.render import print_json
from edgedafl.errors import UsageError

__all__ = ["command"]

_PLACES = {"dvc": Path("metrics.json"), "tensorboard": Path("tensorboard")}


@click.command("track")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", "tracker", required=True, type=click.Choice(["dvc", "mlflow", "tensorboard"]), help="Where to.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="DVC: the metrics file (metrics.json). TensorBoard: its folder (tensorboard).",
)
@click.option("--uri", help="MLflow: the tracking server or store; else MLFLOW_TRACKING_URI.")
@click.option("--experiment", default="edgedafl", show_default=True, help="MLflow: the run is logged under.")
@common
def command(
    run: Path, tracker: str, output: Path | None, uri: str | None, experiment: str, as_json: bool, quiet: bool
) -> int:
    """Hand a run's figures to an experiment tracker.

    \b
    Example:
      edgedafl track runs/teacher-rpi4 --to mlflow --experiment edge
    """
    if tracker == "mlflow" and output is not None:
        raise UsageError("MLflow keeps its runs itself: --output does not fit.", "Say where with --uri.")
    if tracker != "mlflow" and uri is not None:
        raise UsageError(f"--uri is for MLflow, not for {tracker}.", "Say where with --output.")
    directory = run_directory(run)
    from edgedafl.tracking import figures_of, log_to_mlflow, write_dvc_metrics, write_tensorboard

    figures = figures_of(directory)
    if tracker == "mlflow":
        place = log_to_mlflow(figures, uri=uri, experiment=experiment)
    else:
        written = output or _PLACES[tracker]
        place = str(written)
        (write_dvc_metrics if tracker == "dvc" else write_tensorboard)(figures, written)
    if as_json:
        print_json({"tracker": tracker, "place": place, "values": figures.values})
    elif not quiet:
        click.echo(f"{len(figures.values)} figures of {figures.name}: {tracker}, {place}.", err=True)
    return 0
