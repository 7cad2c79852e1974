"""Structured pruning: which channels belong together, which to keep, and the smaller graph."""

from edgedafl.graph.pruning.channels import ChannelMap, Padding, Reader, Slot, are_kept
from edgedafl.graph.pruning.cut import cut
from edgedafl.graph.pruning.interpolation import Moments, Ranking, absorb, observe, rank
from edgedafl.graph.pruning.layers import Layer, layer_of
from edgedafl.graph.pruning.movements import find_movements, movements_of_cut
from edgedafl.graph.pruning.refit import refit
from edgedafl.graph.pruning.rules import trace_channels
from edgedafl.graph.pruning.widths import Costs, Widths, narrowed, width_path

__all__ = [
    "ChannelMap",
    "Costs",
    "Layer",
    "Moments",
    "Padding",
    "Ranking",
    "Reader",
    "Slot",
    "Widths",
    "absorb",
    "are_kept",
    "cut",
    "find_movements",
    "layer_of",
    "movements_of_cut",
    "narrowed",
    "observe",
    "rank",
    "refit",
    "trace_channels",
    "width_path",
]
