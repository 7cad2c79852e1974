"""DVC: a metrics file, which `dvc metrics diff` reads; DVC itself is not needed."""

from __future__ import annotations

import json
from pathlib import Path

from edgedafl.files import write_atomic
from edgedafl.tracking.figures import RunFigures

__all__ = ["write_dvc_metrics"]


def write_dvc_metrics(figures: RunFigures, path: Path) -> None:
    """Write a run's figures as one flat JSON object of numbers.

    Args:
        figures: Of the run.
        path: The file that `dvc.yaml` names under `metrics`.

    Raises:
        EnvironmentMissingError: If it cannot be written.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "metrics.json"
        >>> write_dvc_metrics(RunFigures("mine", {}, {"fidelity": 0.98}, {}, (), ()), path)
        >>> json.loads(path.read_text())
        {'fidelity': 0.98}
    """
    write_atomic(path, json.dumps(figures.values, indent=2, sort_keys=True) + "\n")
