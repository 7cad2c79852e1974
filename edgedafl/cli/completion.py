"""`edgedafl completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from edgedafl.cli.options import common
from edgedafl.cli.render import print_json

__all__ = ["command"]


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def command(shell: str, as_json: bool, quiet: bool) -> int:
    """Print the completion script; add it to your shell's start-up file.

    \b
    Example:
      edgedafl completion bash >> ~/.bashrc
    """
    from edgedafl.cli.app import cli

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(cli, {}, "edgedafl", "_EDGEDAFL_COMPLETE").source()
    if as_json:
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)
    return 0
