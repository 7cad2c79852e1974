"""`edgedafl profile`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgedafl.callbacks import OnMessage
from edgedafl.cli.options import common, run_directory
from edgedafl.cli.render import message_printer, print_json, print_measurement, refuse_invalid
from edgedafl.errors import MeasurementError, UsageError

if TYPE_CHECKING:
    from edgedafl.latency import BenchOptions
    from edgedafl.runs import ProfileResult

__all__ = ["command"]


@click.command("profile")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--device", default="local", show_default=True, help="local, a named device, ssh://user@host:port, adb:SERIAL."
)
@click.option("--target", help="Whose bundle of a run; the run's own by default.")
@click.option("--quick", is_flag=True, help="200 rounds and 3 s instead of 1,024 and 10 s; marked so.")
@click.option("--mlperf", is_flag=True, help="MLPerf's single-stream rules: one model, 600 s.")
@click.option("--layers", is_flag=True, help="Time every operator as well.")
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of a bundle's run.")
@click.option("--cpus", default="", help="Cores to run on, e.g. 4-7.")
@click.option("--processes", type=int, default=3, show_default=True, help="Over how many the samples are spread.")
@click.option("--timeout", default="15m", show_default=True, help="Longest wait for a measurement.")
@click.option("--keep", is_flag=True, help="Leave the bundle on the device.")
@click.option("--against", type=click.Path(path_type=Path), help="Another run or model, measured in turn with PATH.")
@click.option("--max-slowdown", help="With --against: fail if PATH is slower by more, e.g. 10%.")
@click.option("--trust", is_flag=True, help="Run a bundle's programs even if this version did not write them.")
@click.option("--allow-contended", is_flag=True, help="Accept a measurement that was disturbed or throttled.")
@common
def command(
    path: Path,
    device: str,
    target: str | None,
    against: Path | None,
    max_slowdown: str | None,
    trust: bool,
    allow_contended: bool,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> int:
    """Measure the latency of a run or of a bundle directory.

    With --against, PATH and the other are run or model, and what is measured is their ratio: both take turns in
    one process, so that it holds on a busy machine too.

    \b
    Examples:
      edgedafl profile runs/teacher-rpi4 --device ssh://pi@board.local
      edgedafl profile new.onnx --against old.onnx --max-slowdown 10%
    """
    from edgedafl.latency import BenchOptions
    from edgedafl.runs import result_to_dict
    from edgedafl.units import parse_duration

    options = BenchOptions(**{**flags, "timeout": parse_duration(flags["timeout"])})
    on_message = message_printer(quiet)
    if max_slowdown is not None and against is None:
        raise UsageError("--max-slowdown needs --against.", "Name the run or model to compare with.")
    if against is not None:
        return _against(path, against, device, options, on_message, max_slowdown, allow_contended, as_json)
    if (path / "manifest.json").is_file():
        result = _bundle(path, device, options, on_message, trust)
    else:
        run = run_directory(path)
        from edgedafl import pipeline
        from edgedafl.targets import find_target

        chosen = find_target(target) if target else pipeline.run_target(run)
        precision = run.record().precision
        result = pipeline.profile(
            run, target=chosen, precision=precision, device=device, options=options, on_message=on_message
        )
    if as_json:
        print_json(result_to_dict(result))
    else:
        print_measurement(result)
    if result.failed:
        raise MeasurementError(result.failed, result.hint)
    refuse_invalid(result.measured.invalid if result.measured else (), allow_contended)
    return 0


def _against(
    path: Path,
    base: Path,
    device: str,
    options: BenchOptions,
    on_message: Callable[[str], None],
    max_slowdown: str | None,
    allow_contended: bool,
    as_json: bool,
) -> int:
    from dataclasses import asdict

    from edgedafl.stages import measure_against
    from edgedafl.units import format_duration, parse_share

    limit = None if max_slowdown is None else parse_share(max_slowdown)
    found = measure_against(path, base, device, options, on_message)
    passed = limit is None or found.low <= limit
    if as_json:
        print_json({**asdict(found), "limit": limit, "passed": passed})
    else:
        times = " against ".join(format_duration(s.median / 1e9) for s in (found.new, found.base))
        click.echo(f"{times}: {100 * found.median:+.1f} % ({100 * found.low:+.1f} to {100 * found.high:+.1f} %)")
        if limit is not None:
            click.echo(f"{'pass' if passed else 'FAIL'}  slowdown, limit {100 * limit:.4g} %")
    refuse_invalid(found.invalid, allow_contended)
    return 0 if passed else 1


def _bundle(path: Path, device: str, options: BenchOptions, on_message: OnMessage, trust: bool) -> ProfileResult:
    from edgedafl.runs import ProfileResult
    from edgedafl.stages import profile_bundle

    file = path.with_name(f"{path.name}.latency.json")
    return ProfileResult(measured=profile_bundle(path, device, file, options, on_message, trust=trust))
