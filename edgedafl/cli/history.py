"""`edgedafl history`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from edgedafl.cli.options import common
from edgedafl.cli.render import print_json, print_table

__all__ = ["command"]


@click.command("history")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), help="Also write a page with plots over commits.")
@click.option("--last", type=click.IntRange(1), help="Only so many of the newest.")
@common
def command(file: Path, html: Path | None, last: int | None, as_json: bool, quiet: bool) -> int:
    """Show what gates found over time: FILE is what `gate --history FILE` has written.

    \b
    Example:
      edgedafl history sizes.jsonl --html sizes.html
    """
    from edgedafl.files import write_atomic
    from edgedafl.report import HISTORY_COLUMNS, history_page, history_rows
    from edgedafl.runs.history import read_history

    entries = read_history(file)[-(last or 0) :]
    if html is not None:
        write_atomic(html, history_page(entries, f"History of {file.stem}"))
    if as_json:
        print_json([asdict(entry) for entry in entries])
    else:
        print_table(list(HISTORY_COLUMNS), [[cell or "-" for cell in row] for row in history_rows(entries)])
        if html is not None:
            click.echo(f"Page: {html}", err=True)
    return 0
