"""Eleven networks, exported four ways and again as float16 and quantized: all are imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.teachers import imported_forms
from benchmarks.zoo import NETS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", NETS)
def test_every_form_of_a_network_is_imported(name: str, tmp_path: Path) -> None:
    rows = imported_forms(name, tmp_path)
    assert len(rows) == 8
    assert not [row for row in rows if not row["passed"]]
