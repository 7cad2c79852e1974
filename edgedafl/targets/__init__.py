"""Deployment targets and what each of them needs."""

from edgedafl.targets.registry import ALIASES, find_target, list_targets, target_file
from edgedafl.targets.target import QuantizationScheme, Target

__all__ = ["ALIASES", "QuantizationScheme", "Target", "find_target", "list_targets", "target_file"]
