"""Reports of a run."""

from edgedafl.report.compare import Comparison, Difference, compare_runs, comparison_page, differences
from edgedafl.report.history import HISTORY_COLUMNS, history_page, history_rows
from edgedafl.report.plots import front_plot
from edgedafl.report.summary import RunSummary, summarize_run
from edgedafl.report.write import FORMATS, write_report

__all__ = [
    "FORMATS",
    "HISTORY_COLUMNS",
    "Comparison",
    "Difference",
    "RunSummary",
    "compare_runs",
    "comparison_page",
    "differences",
    "front_plot",
    "history_page",
    "history_rows",
    "summarize_run",
    "write_report",
]
