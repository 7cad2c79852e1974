"""Sentences that the reader of a report should see: doubts, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["advice_of"]

_HARDLY = 0.1
"""Share of the arithmetic in integers below which a file should not be called int8."""


def advice_of(results: Mapping[str, Any]) -> list[str]:
    """Of a run's stages, by name."""
    advice = list(results.get("distill", {}).get("recoveries", []))
    advice += results.get("distill", {}).get("warnings", [])
    advice += _training_advice(results.get("distill", {}))
    profile = results.get("profile", {})
    advice += profile.get("measured", {}).get("warnings", [])
    if profile.get("recommendation"):
        advice.append(profile["recommendation"]["text"])
    if profile.get("failed"):
        advice.append(f"The latency was not measured: {profile['failed']}")
    return [*advice, *_integer_advice(results.get("quantize", {}))]


def _training_advice(distill: Mapping[str, Any]) -> list[str]:
    """What became of training, where it is not what one expects."""
    if distill.get("trained") is not False:
        return []
    if not distill["steps"]:
        return ["Nothing was trained: the student is the teacher itself, or the time allowed next to no step."]
    return [f"{distill['steps']} steps of training did not help: the refitted weights were kept."]


def _integer_advice(quantize: Mapping[str, Any]) -> list[str]:
    """What accuracy control did, and what it could not."""
    advice = list(quantize.get("advice", []))
    if quantize.get("trained"):
        advice.append(
            "The int8 weights were trained under rounding on generated images: calibration alone lost too much."
        )
    kept = quantize.get("kept_float", [])
    if kept:
        names = ", ".join(row["layer"] for row in kept)
        advice.append(
            f"{len(kept)} layers stay float so that int8 loses at most {100 * quantize['max_drop']:.2f} points "
            f"of agreement: {names}; {100 * quantize['coverage']:.1f} % of the MACs run in integers."
        )
    if quantize.get("coverage", 1.0) < _HARDLY:
        advice.append(
            f"Only {100 * quantize['coverage']:.0f} % of the MACs run in integers: the file called int8 is "
            "a float model in all but its name. Take fp32 or fp16."
        )
    if quantize.get("holds") is False:
        advice.append(
            f"int8 loses more than the allowed {100 * quantize['max_drop']:.2f} points of agreement on synthetic "
            "images. Real images are clearer; the verdict says what is expected of them."
        )
    return advice
