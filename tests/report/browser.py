"""A page in headless Chromium: what it complains about, how wide it gets, what axe-core finds."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

__all__ = ["axe_core", "chromium", "console_errors", "findings"]

WIDTHS = (360, 768, 1440)
_SECONDS = 120
_RUN = """
(async () => {
  const found = {widths: {}, violations: []};
  for (const frame of document.querySelectorAll("iframe")) {
    const inside = frame.contentDocument.documentElement;
    found.widths[frame.width] = inside.scrollWidth;
  }
  const last = [...document.querySelectorAll("iframe")].pop().contentWindow;
  const result = await last.axe.run(last.document);
  found.violations = result.violations.map(v => `${v.id}: ${v.help} (${v.nodes.map(n => n.html).join(", ")})`);
  found.passes = result.passes.length;
  const box = document.createElement("pre");
  box.id = "found";
  box.textContent = JSON.stringify(found);
  document.body.append(box);
})();
"""


def chromium() -> str | None:
    """The browser, where there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def axe_core() -> Path | None:
    """axe-core's script in a package of its own, where that is installed; the package itself is not imported."""
    found = importlib.util.find_spec("axe_playwright_python")
    places = (found.submodule_search_locations or []) if found else []
    return next((Path(place) / "axe.min.js" for place in places), None)


def console_errors(page: Path, folder: Path) -> list[str]:
    """What the browser logs of a page as it is, its own policy in force."""
    log = _run(page, folder, dark=False).stderr
    return [line for line in log.splitlines() if ":CONSOLE" in line]


def findings(page: Path, folder: Path, *, dark: bool) -> Mapping[str, Any]:
    """Widths that a page takes in frames of `WIDTHS`, and rules of axe-core that it breaks.

    Scripts are forbidden by the page's own policy: a copy without it is looked at.
    """
    script = axe_core()
    assert script is not None
    text = re.sub(r"<meta http-equiv=.Content-Security-Policy.[^>]*>", "", page.read_text("utf-8"))
    with_axe = text.replace("</body>", f"<script>{script.read_text('utf-8')}</script></body>")
    frames = [f'<iframe title="page" width="{w}" height="4000" srcdoc="{escape(text)}"></iframe>' for w in WIDTHS[:-1]]
    frames.append(f'<iframe title="page" width="{WIDTHS[-1]}" height="4000" srcdoc="{escape(with_axe)}"></iframe>')
    host = folder / "host.html"
    host.write_text(
        f"<!doctype html><html lang='en'><body>{''.join(frames)}<script>onload = () => {_RUN.strip()}</script></body></html>",
        "utf-8",
    )
    shown = _run(host, folder, dark=dark).stdout
    box = re.search(r'<pre id="found">(.*?)</pre>', shown, re.DOTALL)
    assert box, shown[-2000:]
    found: Mapping[str, Any] = json.loads(box[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    return found


def _run(page: Path, folder: Path, *, dark: bool) -> subprocess.CompletedProcess[str]:
    browser = chromium()
    assert browser is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=20000"]
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [
        browser,
        *flags,
        scheme,
        "--window-size=1600,4000",
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
    ]
    return subprocess.run(
        [*command, page.resolve().as_uri()], capture_output=True, text=True, timeout=_SECONDS, check=True
    )
