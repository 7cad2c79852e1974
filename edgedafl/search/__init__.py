"""Sweeps over students, targets and seeds, and the front of those worth having."""

from edgedafl.search.front import Trial, front_rows, pareto_front
from edgedafl.search.study import Space
from edgedafl.search.sweep import Sweep, read_sweep, search

__all__ = ["Space", "Sweep", "Trial", "front_rows", "pareto_front", "read_sweep", "search"]
