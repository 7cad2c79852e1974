"""Deployment targets and what each of them needs."""

from edgedafl.targets.registry import (
    ALIASES,
    QuantizationScheme,
    Target,
    find_target,
    list_targets,
)

__all__ = ["ALIASES", "QuantizationScheme", "Target", "find_target", "list_targets"]
