"""The wheel holds what the source tree holds: an editable install hides files that are forgotten."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

SKIPPED = {".pyc"}


def source_files() -> set[str]:
    found = set()
    for folder, base in (("edgedafl", ROOT), ("edgedafl_exporters", ROOT / "exporters")):
        for path in (base / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in SKIPPED:
                found.add(str(path.relative_to(base)))
    return found


@pytest.mark.slow
def test_the_wheel_is_complete_and_holds_nothing_else(tmp_path: Path) -> None:
    copy = tmp_path / "source"
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z", "edgedafl", "exporters", "README.md",
         "LICENSE", "pyproject.toml"], capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(copy)],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == source_files()
    assert "edgedafl/py.typed" in names and "edgedafl/latency/data/chips.toml" in names
