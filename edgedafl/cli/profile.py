"""`edgedafl profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgedafl.cli.options import common, run_directory
from edgedafl.cli.render import print_json, print_table
from edgedafl.errors import MeasurementError

__all__ = ["command"]


@click.command("profile")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--device", default="local", show_default=True, help="Where to measure.")
@click.option("--quick", is_flag=True, help="200 rounds and 3 s instead of 1,024 and 10 s; marked so.")
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of a bundle's run.")
@click.option("--allow-contended", is_flag=True, help="Accept a measurement that was disturbed.")
@common
def command(path: Path, device: str, quick: bool, threads: int, allow_contended: bool, as_json: bool, **_: Any) -> int:
    """Measure the latency of a run or of a bundle directory."""
    if (path / "manifest.json").is_file():
        result = _bundle(path, device, quick, threads)
    else:
        run = run_directory(path)
        from edgedafl import pipeline

        precision = str(run.read_manifest()["precision"])
        target = pipeline.run_target(run)
        result = pipeline.profile(run, target=target, precision=precision, device=device, quick=quick)
    if as_json:
        print_json(result)
    else:
        _show(result)
    if "failed" in result:
        raise MeasurementError(str(result["failed"]))
    disturbed = [w for w in result["measured"]["warnings"] if w.startswith("contended")]
    if disturbed and not allow_contended:
        raise MeasurementError(
            f"The measurement is not valid: {'; '.join(disturbed)}.",
            "Stop other work and run again, or accept it with --allow-contended.",
        )
    return 0


def _bundle(path: Path, device: str, quick: bool, threads: int) -> dict[str, Any]:
    from edgedafl.export import read_bundle
    from edgedafl.stages import profile_bundle

    bundle = read_bundle(path)
    result = path.with_name(f"{path.name}.latency.json")
    return {"measured": profile_bundle(bundle.directory, device, result, quick=quick, threads=threads).to_dict()}


def _show(result: dict[str, Any]) -> None:
    from edgedafl.units import format_duration

    def time(value: float | None, count: int) -> str:
        return format_duration(value / 1e9) if value is not None else f"n/a (n={count})"

    measured = result.get("measured", {})
    rows = [
        [name, *(time(s[k], s["count"]) for k in ("minimum", "median", "p90", "p99")), str(s["count"])]
        for name, s in measured.get("summaries", {}).items()
    ]
    if rows:
        print_table(["measured", "min", "median", "p90", "p99", "samples"], rows)
    for precision, gain in measured.get("speed_up", {}).items():
        if gain is not None:
            click.echo(f"{precision} is {gain:.2f} times as fast as fp32 (medians, measured in turn)")
    for warning in measured.get("warnings", []):
        click.echo(f"Warning: {warning}", err=True)
    if "estimate" in result:
        e = result["estimate"]
        low, mid, high = (format_duration(e[k] / 1e9) for k in ("low", "median", "high"))
        click.echo(f"{e['device']}: estimate, not measured: {mid} ({low} to {high}, tier {e['tier']})")
