"""`edgedafl doctor`."""

from __future__ import annotations

import click

from edgedafl.cli.options import common
from edgedafl.cli.render import exit_code_of, print_findings, print_json

__all__ = ["command"]


@click.command("doctor")
@common
def command(as_json: bool, quiet: bool) -> int:
    """What is installed, and what is missing; exit 3 when something needed is.

    \b
    Example:
      edgedafl doctor --json
    """
    from edgedafl.doctor import examine

    findings = examine()
    if as_json:
        print_json([vars(finding) for finding in findings])
    else:
        print_findings(findings)
    return exit_code_of(findings)
