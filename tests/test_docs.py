"""Documentation that holds: commands exist, links lead somewhere, examples run, words are the field's."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

import edgedafl
from edgedafl.api import quantize
from edgedafl.cli.app import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
# Words that nobody searches for, and grammar of another language.
_FORBIDDEN = re.compile(
    r"so-manieth|of another make|\bbears mirroring|(?<!here )\b(?:is|are) no (?!longer|more|less|faster|slower)|"
    r"\bsisters?\b|\bnobody says|under rounding",
    re.IGNORECASE,
)


def blocks(text: str) -> Iterator[str]:
    """Code of shell blocks, fenced or indented."""
    yield from re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    yield from re.findall(r"(?:^    [^\n]*\n)+", text, re.MULTILINE)


def commands(path: Path) -> Iterator[list[str]]:
    for block in blocks(path.read_text("utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.strip().removeprefix("$ ")
            if words.startswith("edgedafl "):
                yield shlex.split(words.split(" > ")[0], comments=True)[1:]


def help_texts() -> Iterator[tuple[str, str]]:
    """Every command of the command line, and what it says of itself."""
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        yield f"edgedafl {name} --help", inspect.cleandoc(command.help or "")


def commands_of_help(text: str) -> Iterator[list[str]]:
    for line in re.findall(r"^  edgedafl (.+)$", text, re.MULTILINE):
        yield shlex.split(re.split(r" >>? ", line)[0])


ALL = [(path.relative_to(ROOT).as_posix(), command) for path in PAGES for command in commands(path)]
ALL += [(name, command) for name, text in help_texts() for command in commands_of_help(text)]


@pytest.mark.parametrize(("name", "text"), help_texts(), ids=lambda value: value.partition("\n")[0])
def test_every_command_shows_how_it_is_called(name: str, text: str) -> None:
    assert list(commands_of_help(text)), name


def test_the_pages_show_many_commands() -> None:
    assert len(ALL) > 50


@pytest.mark.parametrize(("page", "words"), ALL, ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_every_command_in_the_documentation_is_one(page: str, words: list[str]) -> None:
    """Commands, arguments and flags exist and have the right number of values; nothing is run."""
    command: click.Command = cli
    context = click.Context(cli, info_name="edgedafl")
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None, f"{page}: {name}"
        command, context = found, click.Context(found, parent=context, info_name=name)
    words = [word for word in words if word != "..."]
    command.make_context("edgedafl", list(words))


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#", "mailto:")):
            assert (path.parent / target.partition("#")[0]).exists(), target


def test_every_page_is_in_the_site() -> None:
    nav = re.search(r"^nav:\n(.*)", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE | re.DOTALL)
    assert nav is not None
    listed = set(re.findall(r"[\w/-]+\.md", yaml.dump(yaml.safe_load(nav[1]))))
    assert listed == {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    assert "--max-ram" in (tmp_path / "reference" / "cli" / "index.html").read_text()
    assert "max_size_growth" in (tmp_path / "reference" / "python" / "index.html").read_text()


def test_the_readme_is_short_and_the_glossary_is_not() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
    words = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)[2:]
    assert len(words) >= 40
    assert sorted(words, key=str.lower) == words


def sources() -> list[Path]:
    code = [*(ROOT / "edgedafl").rglob("*.py"), *(ROOT / "exporters").rglob("*.py")]
    return [*code, *(page for page in PAGES if page.name not in ("experiments.md", "CONTRIBUTING.md"))]


def test_words_are_the_fields() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in sources()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        for match in _FORBIDDEN.finditer(line)
    ]
    assert not found, "\n".join(found)


MODULES = [
    module.name
    for module in pkgutil.walk_packages(edgedafl.__path__, "edgedafl.")
    if not module.name.endswith("__main__")
]


def _source(name: str) -> str:
    path = ROOT / Path(*name.split("."))
    file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    return file.read_text("utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples run: beside the files of the repository that they read."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("examples", "LICENSE"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def folder_with_run(folder: Path) -> Path:
    """The same with the run that examples speak of."""
    quantize(
        str(folder / "examples" / "mnist" / "teacher.onnx"),
        target="rpi4",
        input_mean=(0.1307,),
        input_std=(0.3081,),
        device="none",
        output=folder / "runs" / "teacher-rpi4",
    )
    return folder


@pytest.mark.parametrize("name", [name for name in MODULES if ">>>" in _source(name)])
def test_examples_in_docstrings_run(name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_run = "runs/teacher-rpi4" in _source(name)
    monkeypatch.chdir(request.getfixturevalue("folder_with_run" if needs_run else "folder"))
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_every_public_function_has_an_example(name: str) -> None:
    """What a module offers in `__all__`; commands of the command line show theirs in their help."""
    tree = ast.parse(_source(name))
    public = [
        element.value
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
        for element in ast.walk(node.value)
        if isinstance(element, ast.Constant)
    ]
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in public]
    functions = [n for n in functions if not any("click." in ast.unparse(d) for d in n.decorator_list)]
    assert [n.name for n in functions if ">>>" not in (ast.get_docstring(n) or "")] == []


@pytest.mark.parametrize("name", [n for n in edgedafl.__all__ if callable(getattr(edgedafl, n))])
def test_what_the_package_offers_is_documented(name: str) -> None:
    """Functions say what goes in, comes out and is raised, with an example; classes say what they hold."""
    value = getattr(edgedafl, name)
    text = value.__doc__ or ""
    if isinstance(value, type):
        assert "Attributes:" in text or "Args:" in text, name
        return
    wanted = ["Returns:", "Raises:", "Examples:"] if name != "list_targets" else ["Returns:", "Examples:"]
    assert [part for part in wanted if part not in text] == [], name
    assert "Args:" in text or name == "list_targets"
