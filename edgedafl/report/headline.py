"""The three figures a reader looks for first: size, latency and fidelity, each with what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgedafl.units import format_bytes, format_duration

__all__ = ["Figure", "headline", "is_estimated"]

_LOCAL = "local"
_EMULATED = "emulated"  # times that say nothing about a device


@dataclass(frozen=True)
class Figure:
    """One figure, formatted.

    Attributes:
        name: What it is of.
        value: The artifact's; empty where it is not known.
        change: Against the teacher or the float student; empty where nothing can be compared.
        basis: Whether it was measured, on what, or predicted and how surely.
    """

    name: str
    value: str
    change: str
    basis: str


def headline(manifest: Mapping[str, Any], results: Mapping[str, Any]) -> tuple[Figure, ...]:
    """Size, latency and fidelity of a run's artifact.

    Args:
        manifest: Of the run.
        results: Of its stages by name.
    """
    precision = results.get("export", {}).get("precision", manifest["precision"])
    return (
        _size(manifest, results.get("export", {}), precision),
        _latency(manifest["target"], results.get("profile", {}), precision),
        _fidelity(manifest.get("verdict") or {}),
    )


def is_estimated(profile: Mapping[str, Any], precision: str) -> bool:
    """Whether the target's latency is an estimate: where none was measured, or only on this machine and not on it.

    Args:
        profile: Result of the profile stage.
        precision: Of the artifact.
    """
    measured = profile.get("measured")
    if not measured or measured["kind"] == _EMULATED or precision not in measured["summaries"]:
        return "estimate" in profile
    return measured["device"] == _LOCAL and "estimate" in profile


def _size(manifest: Mapping[str, Any], export: Mapping[str, Any], precision: str) -> Figure:
    size, whole = export.get("sizes", {}).get(precision), manifest["teacher"]["size"]
    if size is None:
        return Figure("Size", "", "", "nothing was exported")
    change = f"{whole / size:.1f} times smaller than the teacher's {format_bytes(whole)}" if whole else ""
    return Figure("Size", format_bytes(size), change, f"the {precision} file")


def _latency(target: Mapping[str, Any], profile: Mapping[str, Any], precision: str) -> Figure:
    """Of the target where it is known; what another machine takes is not the target's latency."""
    if is_estimated(profile, precision):
        estimate = profile["estimate"]
        low, middle, high = (format_duration(estimate[key] / 1e9) for key in ("low", "median", "high"))
        basis = f"estimated for {target['title']}, not measured: {low} to {high}, tier {estimate['tier']}"
        return Figure("Latency", middle, "", basis)
    measured = profile.get("measured")
    if measured and measured["kind"] != _EMULATED and precision in measured["summaries"]:
        where = "this machine" if measured["device"] == _LOCAL else measured["device"]
        environment = measured.get("environment", {})
        processor = environment.get("cpu") or environment.get("board")
        basis = f"measured on {where}{f' ({processor})' if processor else ''}, one call, median"
        median = format_duration(measured["summaries"][precision]["median"] / 1e9)
        return Figure("Latency", median, _gain(measured, precision), basis)
    return Figure("Latency", "", "", str(profile.get("failed") or f"not measured on {target['title']}"))


def _gain(measured: Mapping[str, Any], precision: str) -> str:
    gain = measured.get("speed_up", {}).get(precision)
    if gain is None:
        return ""
    if gain >= 1:
        return f"{gain:.2f} times as fast as the student in float32"
    return f"{1 / gain:.2f} times as slow as the student in float32"


def _fidelity(verdict: Mapping[str, Any]) -> Figure:
    band = verdict.get("band")
    if band is None:
        return Figure("Fidelity", "", "", "not known: give pictures (--images) or labelled images (--eval)")
    answers = f", {band['images']:,} images" if band["images"] else ""
    change = f"at least {100 * verdict['floor']:.4g} % asked for" if verdict.get("floor") else "no floor asked for"
    low, high = 100 * band["low"], 100 * band["high"]
    return Figure(
        "Fidelity",
        f"{100 * band['fidelity']:.1f} %",
        change,
        f"{band['kind']}{answers}: {low:.1f} to {high:.1f} % in 90 of 100 cases",
    )
