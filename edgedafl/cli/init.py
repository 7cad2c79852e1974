"""`edgedafl init`."""

from __future__ import annotations

from pathlib import Path

import click

from edgedafl.cli.options import common
from edgedafl.cli.render import print_json
from edgedafl.errors import UsageError

__all__ = ["command"]

_TEMPLATE = """\
# EdgeDAFL's settings; flags win over this file. The same keys work under
# [tool.edgedafl] in pyproject.toml.

[compress]
target = "{target}"
# preset = "default"          # quick (1 min), default (3 min), extensive (20 min)
# input_mean = [0.485, 0.456, 0.406]
# input_std = [0.229, 0.224, 0.225]
# eval = "labelled.npz"       # for the report only

[gate]
max_size = "1MB"
# min_agreement = "97%"
# min_accuracy = "98%"
# max_latency = "5ms"
"""


@click.command("init")
@click.option("--target", default="jetson", show_default=True, help="Target to write into the file.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@common
def command(target: str, force: bool, as_json: bool, quiet: bool) -> int:
    """Write an edgedafl.toml to start from.

    \b
    Example:
      edgedafl init --target rpi5
    """
    from edgedafl.files import write_atomic
    from edgedafl.targets import find_target

    find_target(target)
    path = Path("edgedafl.toml")
    if path.exists() and not force:
        raise UsageError("edgedafl.toml exists already.", "Replace it with --force.")
    write_atomic(path, _TEMPLATE.format(target=target))
    if as_json:
        print_json({"written": str(path)})
    else:
        click.echo(f"Written: {path}")
    return 0
