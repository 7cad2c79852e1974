"""Procedural images: what a student can learn from before, or without, a generator."""

from edgedafl.distill.priors.fields import collages, noise_fields
from edgedafl.distill.priors.mixture import FAMILIES, PriorMixture, information
from edgedafl.distill.priors.strokes import pen_lines

__all__ = ["FAMILIES", "PriorMixture", "collages", "information", "noise_fields", "pen_lines"]
