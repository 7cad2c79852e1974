"""The notebook of `examples/`, run from its first cell to its last."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "compress.ipynb"
MISSING = [name for name in ("nbclient", "nbformat", "ipykernel") if importlib.util.find_spec(name) is None]


def kinds(cell: Any) -> set[str]:
    """Kinds of data that a cell shows."""
    return {kind for output in cell.get("outputs", ()) for kind in output.get("data", ())}


def printed(cell: Any) -> str:
    """What a cell prints."""
    return "".join(output.get("text", "") for output in cell.get("outputs", ()))


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_the_notebook_runs_and_shows_its_plots() -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    text = "\n".join(printed(cell) for cell in cells)
    assert "(1, 32, 32) to 10 classes" in text
    assert "Faithful: " in text
    assert "stages: ladder" in text or "stages: distill" in text
    shown = [kinds(cell) for cell in cells]
    assert sum("image/svg+xml" in kind for kind in shown) >= 2
    assert sum("image/png" in kind for kind in shown) == 1
    assert sum("text/markdown" in kind for kind in shown) == 2
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
