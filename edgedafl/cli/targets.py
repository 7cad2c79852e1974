"""`edgedafl targets`."""

from __future__ import annotations

import click

from edgedafl.cli.options import common
from edgedafl.cli.render import print_json, print_table
from edgedafl.errors import UsageError

__all__ = ["command"]


@click.command("targets")
@click.argument("name", required=False)
@click.option("--toml", "as_toml", is_flag=True, help="Print NAME's file, to begin one of your own with.")
@common
def command(name: str | None, as_toml: bool, as_json: bool, quiet: bool) -> int:
    """List the targets, or show the target NAME (installed, or the path of a .toml file).

    \b
    Example:
      edgedafl targets rpi5 --toml > mine.toml
    """
    from edgedafl.targets import ALIASES, find_target, list_targets, target_file

    if as_toml:
        if name is None:
            raise UsageError("--toml prints one target.", "Name it: edgedafl targets rpi5 --toml.")
        find_target(name)
        click.echo(target_file(name).read_text("utf-8"), nl=False)
        return 0
    if name is not None:
        target = find_target(name)
        if as_json:
            print_json(target.to_dict())
            return 0
        rows = [[key, str(value)] for key, value in target.to_dict().items() if not isinstance(value, dict)]
        rows += [[f"scheme.{key}", str(value)] for key, value in vars(target.scheme).items()]
        print_table(["", ""], rows)
        return 0
    targets = list_targets()
    if as_json:
        print_json([target.to_dict() for target in targets])
        return 0
    aliases = {full: alias for alias, full in ALIASES.items()}
    rows = [[t.name, aliases.get(t.name, ""), t.title, t.precision, f"{t.runtime} {t.runtime_range}"] for t in targets]
    print_table(["target", "alias", "what", "precision", "runtime"], rows)
    return 0
