"""What is published: whole, readable by the index, and at work without the source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import EXAMPLE, ROOT

SKIPPED = {".pyc"}
pytestmark = pytest.mark.slow


def source_files() -> set[str]:
    found = set()
    for folder, base in (("edgedafl", ROOT), ("edgedafl_exporters", ROOT / "exporters")):
        for path in (base / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in SKIPPED:
                found.add(str(path.relative_to(base)))
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel that was built out of it."""
    place = tmp_path_factory.mktemp("built")
    copy = place / "source"
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z", "edgedafl", "exporters", "README.md",
         "LICENSE", "pyproject.toml"], capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "-o", str(place / "dist"), str(copy)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return place / "dist"


def test_the_wheel_is_complete_and_holds_nothing_else(built: Path) -> None:
    """An editable install hides files that are forgotten."""
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == source_files()
    assert "edgedafl/py.typed" in names and "edgedafl/latency/data/chips.toml" in names
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "edgedafl/py.typed"} <= held
    assert not {name for name in held if name.startswith(("tests", "benchmarks"))}


def test_the_index_takes_both(built: Path) -> None:
    files = [str(path) for path in built.iterdir()]
    command = [sys.executable, "-m", "twine", "check", "--strict", *files]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


def test_the_wheel_works_from_another_folder_and_writes_nothing_where_it_lies(built: Path, tmp_path: Path) -> None:
    """In an environment that has the wheel and this one's dependencies, but no source tree."""
    environment, away = tmp_path / "environment", tmp_path / "away"
    away.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    # With the source tree in PYTHONPATH pip would take the package for installed.
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    variables |= {"PYTHONDONTWRITEBYTECODE": "1", "HOME": str(away)}
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, env=variables)
    (packages,) = environment.glob("lib/python*/site-packages")
    # Paths of a .pth file are searched, but what lies there is not run: no editable install comes with them.
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    before = {path: path.stat().st_mtime_ns for path in packages.rglob("*")}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(environment / "bin" / command[0]), *command[1:]],
            check=False, cwd=away, env=variables, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    where = run("python", "-c", "import edgedafl, edgedafl_exporters as e; print(edgedafl.__file__, e.__file__)")
    assert where.stdout.count(str(packages)) == 2, where.stdout + where.stderr
    done = run(
        "edgedafl", "compress", str(EXAMPLE / "teacher.onnx"), "--target", "raspberry-pi", "--input-mean", "0.1307",
        "--input-std", "0.3081", "--time-budget", "10s", "--quick", "--threads", "1", "-o", "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Faithful: ")
    assert (away / "run" / "report.html").is_file() and (away / "run" / "bundles" / "rpi5").is_dir()
    assert {path: path.stat().st_mtime_ns for path in packages.rglob("*")} == before
