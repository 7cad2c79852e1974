"""`edgedafl quantize`: a model as it is, or the student of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgedafl.cli.compress import run_compress
from edgedafl.cli.options import common, run_directory, training
from edgedafl.cli.render import print_json, print_table
from edgedafl.cli.sections import Sectioned
from edgedafl.config import AS_IT_IS
from edgedafl.errors import UsageError

if TYPE_CHECKING:
    from edgedafl.runs import QuantizeResult

__all__ = ["command"]

_OF_RUNS = {"target", "precision", "max_drop", "weight_bits"}


@click.command("quantize", cls=Sectioned)
@training
@common
def command(teacher: str, resume: bool, force: bool, dry_run: bool, as_json: bool, quiet: bool, **flags: Any) -> int:
    """Quantize a model as it is, without data, or a run's student once more.

    TEACHER is a model as for `compress`: all its layers stay, nothing is trained unless integers ask
    for it, and the bundle is verified. Latency is estimated; measure it with --device local. TEACHER
    may also be a run directory: then its student is quantized for --target at --precision.

    \b
    Examples:
      edgedafl quantize teacher.onnx --target android
      edgedafl quantize runs/teacher-rpi4 --target jetson
    """
    if Path(teacher).is_dir():
        given = {name for name, value in flags.items() if value is not None}
        if resume or force or dry_run or given - _OF_RUNS:
            raise UsageError(
                f"{teacher!r} is a run; for its student only --target, --precision, --max-drop and --weight-bits "
                "can be said.",
                "Name the model instead of the run for other choices.",
            )
        return _of_run(Path(teacher), **{name: flags[name] for name in _OF_RUNS}, as_json=as_json)
    flags |= {name: value for name, value in AS_IT_IS.items() if flags[name] is None}
    return run_compress(teacher, flags, resume=resume, force=force, dry_run=dry_run, as_json=as_json, quiet=quiet)


def _of_run(
    path: Path,
    *,
    target: str | None,
    precision: str | None,
    max_drop: str | None,
    weight_bits: float | None,
    as_json: bool,
) -> int:
    directory = run_directory(path)
    from edgedafl import pipeline
    from edgedafl.runs import result_to_dict
    from edgedafl.targets import find_target
    from edgedafl.units import parse_share

    chosen = find_target(target) if target else pipeline.run_target(directory)
    allowed = None if max_drop is None else parse_share(max_drop)
    result = pipeline.quantize(
        directory, target=chosen, precision=precision or "int8", max_drop=allowed, weight_bits=weight_bits
    )
    if as_json:
        print_json(result_to_dict(result))
    elif result.method:
        _show(chosen.name, result)
    else:
        click.echo(f"{chosen.name}: {precision} written")
    return 0


def _show(target: str, result: QuantizeResult) -> None:
    click.echo(
        f"{target}: int8{result.in_bits} by {result.method} calibration, agreement with the teacher "
        f"{100 * (result.agreement or 0):.2f} % (float {100 * (result.float_agreement or 0):.2f} %), "
        f"{100 * (result.coverage or 0):.1f} % of the MACs run in integers"
    )
    print_table(["tried", "agreement"], [[name, f"{100 * value:.2f} %"] for name, value in result.tried.items()])
    for row in result.kept_float:
        click.echo(f"stays float: {row.layer} (scores move by {row.sensitivity:.3g} when it alone is int8)")
    if not result.holds:
        click.echo(
            f"The allowed drop of {100 * (result.max_drop or 0):.2f} points does not hold in integers.", err=True
        )
    for text in result.advice:
        click.echo(f"Note: {text}")
