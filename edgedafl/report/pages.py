"""The templates behind every page and Markdown file."""

from __future__ import annotations

from typing import Any

__all__ = ["render_page"]


def render_page(name: str, **values: Any) -> str:
    """Fill a template of this package.

    Args:
        name: File of the template; values are escaped for HTML where it ends in `.html`.
        values: What it shows.

    Examples:
        >>> columns, rows = ["model", "size"], [["int8", "<1 MB"]]
        >>> page = render_page("page.html", title="<Sizes>")
        >>> "&lt;Sizes&gt;" in page
        True
    """
    import jinja2

    loader = jinja2.PackageLoader("edgedafl.report", "templates")
    html = name.endswith(".html")
    environment = jinja2.Environment(loader=loader, autoescape=html, undefined=jinja2.StrictUndefined)
    environment.filters["md"] = _escape_markdown
    return environment.get_template(name).render(values)


def _escape_markdown(text: str) -> str:
    for mark in "\\`*_<>|":
        text = text.replace(mark, f"\\{mark}")
    return text
