"""Ways to make images without data; one engine runs them all."""

from edgedafl.distill.synthesizers.adversarial import AdversarialSettings, AdversarialSynthesizer
from edgedafl.distill.synthesizers.base import Batch, Recipe, Synthesizer
from edgedafl.distill.synthesizers.blackbox import BlackBoxSettings, BlackBoxSynthesizer
from edgedafl.distill.synthesizers.dafl import DaflSettings, DaflSynthesizer
from edgedafl.distill.synthesizers.disagreement import (
    DisagreementSettings,
    DisagreementSynthesizer,
    dfad,
    dfq,
    zskt,
)
from edgedafl.distill.synthesizers.fast import FastSettings, FastSynthesizer
from edgedafl.distill.synthesizers.inversion import InversionSettings, InversionSynthesizer
from edgedafl.distill.synthesizers.procedural import ProceduralSettings, ProceduralSynthesizer
from edgedafl.distill.synthesizers.procedural_images import ProceduralImages

__all__ = [
    "AdversarialSettings",
    "AdversarialSynthesizer",
    "Batch",
    "BlackBoxSettings",
    "BlackBoxSynthesizer",
    "DaflSettings",
    "DaflSynthesizer",
    "DisagreementSettings",
    "DisagreementSynthesizer",
    "FastSettings",
    "FastSynthesizer",
    "InversionSettings",
    "InversionSynthesizer",
    "ProceduralImages",
    "ProceduralSettings",
    "ProceduralSynthesizer",
    "Recipe",
    "Synthesizer",
    "dfad",
    "dfq",
    "zskt",
]
