"""`edgedafl search`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from edgedafl.cli.options import common, merged_config, training
from edgedafl.cli.render import print_json, print_table
from edgedafl.cli.sections import Sectioned
from edgedafl.errors import UsageError

__all__ = ["command"]


@click.command("search", cls=Sectioned)
@click.option("--students", help="Students to try, comma-separated; by default those below the teacher's size.")
@click.option("--targets", help="Targets to try, comma-separated; by default --target.")
@click.option("--seeds", default="0", show_default=True, help="Seeds to try, comma-separated.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Trials at the same time.")
@click.option("--trials", type=click.IntRange(1), help="Most trials; Optuna chooses which are worth it.")
@training
@common
def command(
    teacher: str,
    students: str | None,
    targets: str | None,
    seeds: str,
    workers: int,
    trials: int | None,
    resume: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> int:
    """Try several students, targets and seeds for TEACHER; shows which are worth having.

    The same command goes on with an interrupted sweep, also from several machines that share the
    folder.

    \b
    Example:
      edgedafl search teacher.onnx --students kept:0.3,kept:0.5 --targets rpi4,rpi5
    """
    if force:
        raise UsageError("`search` never replaces a sweep.", "Choose another folder with --output, or remove this one.")
    config = merged_config(teacher, flags)
    space = _space(teacher, config, students, targets, seeds)
    if dry_run:
        print_json({"teacher": teacher, "space": asdict(space), "trials": trials or len(space.points())})
        return 0
    from edgedafl.files import write_atomic
    from edgedafl.report import front_plot
    from edgedafl.search import front_rows, search

    def on_message(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    sweep = search(teacher, config, space, workers=workers, trials=trials, on_message=on_message)
    write_atomic(config.output / "front.svg", front_plot(sweep.trials))
    if as_json:
        print_json(asdict(sweep))
    else:
        header = ["student", "target", "seed", "synthetic agreement", "size", "latency (estimate)", ""]
        print_table(header, front_rows(sweep.trials))
        for name, reason in sweep.failed.items():
            click.echo(f"Failed: {name}: {reason}", err=True)
        click.echo(f"Plot: {config.output}/front.svg")
    return 1 if sweep.failed else 0


def _space(teacher: str, config: Any, students: str | None, targets: str | None, seeds: str) -> Any:
    from edgedafl.search import Space

    names = tuple(students.split(",")) if students else _usual_students(teacher, config)
    try:
        numbers = tuple(int(seed) for seed in seeds.split(","))
    except ValueError as error:
        raise UsageError(f"--seeds {seeds!r} is not a list of whole numbers.", "Write it like 0,1,2.") from error
    return Space(names, tuple(targets.split(",")) if targets else (config.target,), numbers)


def _usual_students(teacher: str, config: Any) -> tuple[str, ...]:
    """Those that the automatic choice would choose from, below the teacher's own size."""
    from edgedafl.stages import builder, options_of, study_teacher
    from edgedafl.students import students_below
    from edgedafl.targets import find_target
    from edgedafl.teachers import load_teacher

    loaded = load_teacher(teacher, options_of(config))
    build = builder(config, loaded, study_teacher(loaded), find_target(config.target))
    return students_below(build.names, build, build.teacher.spec.parameters)
