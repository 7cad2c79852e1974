"""`edgedafl report`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from edgedafl.cli.options import common, run_directory
from edgedafl.cli.render import print_json, print_summary, print_table
from edgedafl.errors import UsageError

__all__ = ["command"]


@click.command("report")
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--format", "formats", default="html,md,json", show_default=True, help="Of one run: which files to write."
)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Of several runs: the page to write.")
@common
def command(runs: tuple[Path, ...], formats: str, output: Path | None, as_json: bool, quiet: bool) -> int:
    """Write a run's report again; of several RUNS, a page that compares them with the first.

    \b
    Example:
      edgedafl report runs/before runs/after -o comparison.html
    """
    if len(runs) > 1:
        return _compare(runs, output, as_json)
    if output is not None:
        raise UsageError("--output is the page of several runs.", "Name two runs or more; one has its own report.")
    return _one(runs[0], formats, as_json)


def _one(run: Path, formats: str, as_json: bool) -> int:
    directory = run_directory(run)
    from edgedafl.report import FORMATS, summarize_run, write_report

    chosen = tuple(part.strip() for part in formats.split(","))
    unknown = [part for part in chosen if part not in FORMATS]
    if unknown:
        raise UsageError(f"There is no report format {unknown[0]!r}.", f"Known: {', '.join(FORMATS)}.")
    write_report(directory, chosen)
    if as_json:
        print_json(directory.manifest())
    else:
        print_summary(summarize_run(directory), str(run), detail=True)
    return 0


def _compare(runs: tuple[Path, ...], output: Path | None, as_json: bool) -> int:
    directories = [run_directory(run) for run in runs]
    from edgedafl.files import write_atomic
    from edgedafl.report import compare_runs, comparison_page

    found = compare_runs(directories)
    page = output or Path("comparison.html")
    write_atomic(page, comparison_page(found))
    if as_json:
        print_json({"runs": list(found.runs), "rows": [asdict(row) for row in found.rows]})
        return 0
    rows = [[r.name, *(f"{c.value} ({c.change})" if c.change else c.value for c in r.cells)] for r in found.rows]
    print_table(["", *found.runs], rows)
    click.echo(f"Page: {page}", err=True)
    return 0
