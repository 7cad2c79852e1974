"""Structured pruning: which channels belong together, which to keep, and the smaller graph."""

from edgedafl.graph.pruning.channels import ChannelMap, Padding, Reader, Slot, are_kept
from edgedafl.graph.pruning.cut import cut
from edgedafl.graph.pruning.interpolation import Moments, absorb, observe, rank
from edgedafl.graph.pruning.rules import trace_channels

__all__ = [
    "ChannelMap",
    "Moments",
    "Padding",
    "Reader",
    "Slot",
    "absorb",
    "are_kept",
    "cut",
    "observe",
    "rank",
    "trace_channels",
]
