"""`edgedafl bundle verify`."""

from __future__ import annotations

from pathlib import Path

import click

from edgedafl.cli.options import common
from edgedafl.cli.render import print_json, print_table

__all__ = ["command"]


@click.group("bundle")
def command() -> None:
    """What was exported for a device.

    \b
    Example:
      edgedafl bundle verify runs/teacher-rpi4/bundles/rpi4.tar.gz
    """


@command.command("verify")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--files-only", is_flag=True, help="Digests alone; run no model.")
@common
def verify(path: Path, files_only: bool, as_json: bool, quiet: bool) -> int:
    """Check every file of the bundle PATH (a folder or its .tar.gz), then its models' answers.

    Exit 2 where a file is missing, changed or not listed; 1 where a model answers differently
    from the machine that built the bundle; 3 where its runtime is not installed here.
    """
    from edgedafl.export import opened_bundle
    from edgedafl.stages import check_answers, trials
    from edgedafl.units import format_bytes

    with opened_bundle(path) as bundle:
        parities = {} if files_only else check_answers(bundle)
        built = {} if files_only else trials(bundle)
        manifest = bundle.manifest
    result = {
        "path": str(path),
        "student": manifest["student"],
        "target": manifest["target"],
        "files": manifest["files"],
        "answers": {file: vars(parity) for file, parity in parities.items()},
        "built": built,
    }
    if as_json:
        print_json(result)
        return 0
    click.echo(f"{manifest['student']} for {manifest['target']}: {len(manifest['files'])} files are whole.")
    rows = [
        [file, f"{p.relative_error:.2g}", f"{100 * p.same_class:.1f} % of {p.rows}"] for file, p in parities.items()
    ]
    if rows:
        print_table(["model", "relative error", "same class"], rows)
    for file, facts in built.items():
        timed = f", {facts['latency_ms']:.3f} ms on {facts['gpu']}" if "latency_ms" in facts else ""
        click.echo(f"{file} builds with {facts['package']}: plan of {format_bytes(facts['plan_bytes'])}{timed}")
    return 0
