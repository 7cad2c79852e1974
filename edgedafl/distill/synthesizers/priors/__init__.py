"""Procedural images: what a student can learn from before, or without, a generator."""

from edgedafl.distill.synthesizers.priors.fields import collages, noise_fields
from edgedafl.distill.synthesizers.priors.leaves import dead_leaves, spectra
from edgedafl.distill.synthesizers.priors.mixture import (
    FAMILIES,
    NATURAL,
    PICTURES,
    Family,
    PriorMixture,
    information,
)
from edgedafl.distill.synthesizers.priors.strokes import pen_lines

__all__ = [
    "FAMILIES",
    "NATURAL",
    "PICTURES",
    "Family",
    "PriorMixture",
    "collages",
    "dead_leaves",
    "information",
    "noise_fields",
    "pen_lines",
    "spectra",
]
