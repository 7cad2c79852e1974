"""`edgedafl report`."""

from __future__ import annotations

from pathlib import Path

import click

from edgedafl.cli.options import common, run_directory
from edgedafl.cli.render import print_json, print_summary

__all__ = ["command"]


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--format", "formats", default="html,md,json", show_default=True, help="Which files to write.")
@common
def command(run: Path, formats: str, as_json: bool, quiet: bool) -> int:
    """Write RUN's report again and print its summary."""
    directory = run_directory(run)
    from edgedafl.errors import UsageError
    from edgedafl.report import FORMATS, summarize_run, write_report

    chosen = tuple(part.strip() for part in formats.split(","))
    unknown = [part for part in chosen if part not in FORMATS]
    if unknown:
        raise UsageError(f"There is no report format {unknown[0]!r}.", f"Known: {', '.join(FORMATS)}.")
    write_report(directory, chosen)
    summary = summarize_run(directory)
    if as_json:
        print_json(directory.manifest())
    else:
        print_summary(summary, str(run), detail=True)
    return 0
