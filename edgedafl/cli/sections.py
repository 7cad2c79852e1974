"""Flags in sections: `--help` of a command with forty of them can be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

__all__ = ["Sectioned", "in_section"]

_REST = "Output"
_Function = Callable[..., Any]


class _Option(click.Option):
    """A flag that knows its section."""

    def __init__(self, *args: Any, section: str = _REST, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.section = section


def in_section(section: str) -> Callable[..., Callable[[_Function], _Function]]:
    """`click.option` whose flags are listed under a heading.

    Examples:
        >>> teacher = in_section("Teacher")
        >>> flag = teacher("--layout", help="NCHW or NHWC.")
    """

    def option(*names: str, **attributes: Any) -> Callable[[_Function], _Function]:
        return click.option(*names, cls=_Option, section=section, **attributes)

    return option


class Sectioned(click.Command):
    """A command whose help lists flags by section, in the order in which they were declared."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one heading and its flags after the other."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", _REST), []).append(record)
        rest = sections.pop(_REST, [])
        for title, records in [*sections.items(), (_REST, rest)]:
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
