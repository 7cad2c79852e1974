"""`edgedafl diff`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgedafl.cli.options import common, run_directory
from edgedafl.cli.render import print_json, print_table

if TYPE_CHECKING:
    from edgedafl.report import Comparison

__all__ = ["command"]


@click.command("diff")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["text", "json", "markdown"]), default="text", show_default=True)
@common
def command(a: Path, b: Path, form: str, as_json: bool, quiet: bool) -> int:
    """Compare the artifacts of the runs A and B; `report A B ...` writes a page.

    \b
    Example:
      edgedafl diff runs/before runs/after --format markdown
    """
    first, second = run_directory(a), run_directory(b)
    from edgedafl.report import compare_runs

    found = compare_runs((first, second))
    if as_json or form == "json":
        print_json([asdict(row) for row in found.rows])
    elif form == "markdown":
        click.echo(_markdown(found))
    else:
        rows = [[r.name, *(cell.value for cell in r.cells), r.cells[1].change] for r in found.rows]
        print_table(["", str(a), str(b), "change"], rows)
    return 0


def _markdown(found: Comparison) -> str:
    """A table for a pull request."""
    names = [name.replace("|", "\\|") for name in found.runs]
    lines = [f"|  | {' | '.join(names)} | change |", f"|---|{'---:|' * (len(names) + 1)}"]
    lines += [f"| {r.name} | {' | '.join(cell.value for cell in r.cells)} | {r.cells[1].change} |" for r in found.rows]
    return "\n".join(lines)
