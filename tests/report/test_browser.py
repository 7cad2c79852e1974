"""Pages as a browser shows them: nothing to complain about, no overflow, no barrier that axe-core knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedafl.report import compare_runs, comparison_page, history_page, write_report
from edgedafl.runs.history import HistoryEntry
from tests.report.browser import WIDTHS, axe_core, chromium, console_errors, findings
from tests.report.test_report import run_with

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="Chromium is not installed"),
    pytest.mark.skipif(axe_core() is None, reason="axe-core is not installed (axe-playwright-python)"),
]


def _page(kind: str, folder: Path) -> Path:
    """One of the pages that are written for people, with names that want to be markup."""
    run = run_with(folder / "run")
    page = folder / "page.html"
    if kind == "report":
        write_report(run)
        return run.path / "report.html"
    if kind == "comparison":
        page.write_text(comparison_page(compare_runs([run, run_with(folder / "other")])), "utf-8")
        return page
    days = [HistoryEntry(f"2026-01-0{day}T00:00:00", f"{day}abc", "<b>", day < 3, size=day * 1000) for day in (1, 2, 3)]
    page.write_text(history_page(days, "my <b> history"), "utf-8")
    return page


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The report of a run."""
    return _page("report", tmp_path)


def test_what_a_browser_complains_about_is_found(page: Path, tmp_path: Path) -> None:
    page.write_text(page.read_text("utf-8").replace("</body>", "<script>1</script></body>"), "utf-8")
    assert console_errors(page, tmp_path), "the page's policy forbids scripts, and that is logged"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", ["report", "comparison", "history"])
def test_a_page_overflows_nowhere_and_breaks_no_rule_of_accessibility(kind: str, dark: bool, tmp_path: Path) -> None:
    page = _page(kind, tmp_path)
    assert console_errors(page, tmp_path) == []
    found = findings(page, tmp_path, dark=dark)
    assert found["widths"].keys() == {str(width) for width in WIDTHS}
    assert all(taken <= int(width) for width, taken in found["widths"].items())
    assert found["passes"] > 10
    assert found["violations"] == []


def test_barriers_are_found_where_there_are_some(page: Path, tmp_path: Path) -> None:
    worse = page.read_text("utf-8").replace("</body>", '<img src="data:,"><div style="width:900px">x</div></body>')
    page.write_text(worse, "utf-8")
    found = findings(page, tmp_path, dark=False)
    assert any(violation.startswith("image-alt") for violation in found["violations"])
    assert found["widths"]["360"] > 800
