"""Structured pruning: which channels belong together, which to keep, and the smaller graph."""

from edgedafl.graph.pruning.channels import ChannelMap, Padding, Reader, WeightAxis, are_kept
from edgedafl.graph.pruning.cut import cut
from edgedafl.graph.pruning.interpolation import Moments, Ranking, collect_moments, fold_into_weights, rank_channels
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
    "WeightAxis",
    "Widths",
    "are_kept",
    "collect_moments",
    "cut",
    "find_movements",
    "fold_into_weights",
    "layer_of",
    "movements_of_cut",
    "narrowed",
    "rank_channels",
    "refit",
    "trace_channels",
    "width_path",
]
