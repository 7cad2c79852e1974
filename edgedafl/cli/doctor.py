"""`edgedafl doctor`."""

from __future__ import annotations

import click

from edgedafl.cli.options import common
from edgedafl.cli.render import print_json, print_table
from edgedafl.errors import ExitCode

__all__ = ["command"]

_MARKS = {True: "ok", False: "MISSING", None: "-"}


@click.command("doctor")
@common
def command(as_json: bool, quiet: bool) -> int:
    """What is installed, and what is missing; exit 3 when something needed is."""
    from edgedafl.doctor import examine

    findings = examine()
    if as_json:
        print_json([vars(finding) for finding in findings])
    else:
        rows = [[_MARKS[f.ok], f.name, f.detail, f.remedy] for f in findings]
        print_table(["", "what", "found", "what to do"], rows)
    return int(ExitCode.ENVIRONMENT) if any(f.ok is False for f in findings) else 0
