"""`edgedafl diff`."""

from __future__ import annotations

from pathlib import Path

import click

from edgedafl.cli.options import common, run_directory
from edgedafl.cli.render import print_json, print_table

__all__ = ["command"]


@click.command("diff")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@common
def command(a: Path, b: Path, as_json: bool, quiet: bool) -> int:
    """Compare the artifacts of the runs A and B."""
    first, second = run_directory(a), run_directory(b)
    from edgedafl.report import compare_runs

    rows = compare_runs(first, second)
    if as_json:
        print_json([vars(row) for row in rows])
        return 0
    print_table(["", str(a), str(b), "change"], [[r.name, r.before, r.after, r.change] for r in rows])
    return 0
