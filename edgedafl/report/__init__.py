"""Reports of a run."""

from edgedafl.report.compare import Difference, compare_runs
from edgedafl.report.plots import front_plot
from edgedafl.report.summary import RunSummary, summarize_run
from edgedafl.report.write import FORMATS, write_report

__all__ = [
    "FORMATS",
    "Difference",
    "RunSummary",
    "compare_runs",
    "front_plot",
    "summarize_run",
    "write_report",
]
