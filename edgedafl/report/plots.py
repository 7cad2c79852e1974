"""Plots as inline SVG; lines and text have the colour of the page around them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from edgedafl.runs import Candidate, Progress

__all__ = [
    "FrontTrial",
    "agreement_plot",
    "bar_plot",
    "front_plot",
    "ladder_plot",
    "latency_plot",
    "series_plot",
    "trade_off_plot",
]

_INK, _ACCENT, _SOFT = "#1f2933", "#3b82f6", "#8a9bb0"


def _blank(width: float, height: float) -> Any:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "edgedafl", "font.size": 9})
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _figure(width: float, height: float) -> Any:
    figure = _blank(width, height)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor").replace("#000000", "currentColor")
    return re.sub(r'width="[^"]+" height="[^"]+"', 'width="100%"', text, count=1)


def agreement_plot(metrics: Sequence[Progress], *, over_queries: bool = False) -> str:
    """Synthetic agreement over seconds or over teacher queries; empty where no probe was taken.

    Examples:
        >>> from edgedafl.runs import AgreementReport
        >>> shares = AgreementReport({"natural": 0.9}, 0.9, 0.9)
        >>> lines = [Progress(step, step / 10, float(step), {}, shares, 100.0, 0) for step in (5, 10)]
        >>> "<svg" in agreement_plot(lines)
        True
    """
    rows = [(m.queries if over_queries else m.seconds, m.agreement.sets) for m in metrics if m.agreement is not None]
    if not rows:
        return ""
    figure, axes = _figure(5.2, 2.6)
    names = list(dict.fromkeys(name for _, sets in rows for name in sets))
    for index, name in enumerate(names):
        points = [(t, 100 * sets[name]) for t, sets in rows if name in sets]
        colour = _SOFT if name == "priors" else _ACCENT
        axes.plot(*zip(*points, strict=True), color=colour, alpha=1 - 0.15 * index, label=name, lw=1.4)
    axes.set_xlabel("images the teacher was asked about" if over_queries else "seconds of distillation")
    axes.set_ylabel("synthetic agreement, %")
    axes.legend(fontsize=7, frameon=False)
    return _svg(figure)


def ladder_plot(ladder: Sequence[Candidate], taken: str, weight_bits: float = 8.0) -> str:
    """Predicted fidelity over size of all candidates that were looked at; empty where there were fewer than two.

    Examples:
        >>> whole = Candidate("kept:1", 1.0, (3, 32, 32), 100, 1_000, 120, None)
        >>> ladder_plot([whole], "kept:1")  # one candidate is not a ladder
        ''
    """
    known = [(c.is_of(taken, weight_bits), c.size / 1e3, c.expected) for c in ladder if c.expected is not None]
    if len(known) < 2:
        return ""
    figure, axes = _figure(5.2, 2.6)
    sizes = [size for _, size, _ in known]
    middle = [100 * band.fidelity for _, _, band in known]
    below = [100 * (band.fidelity - band.low) for _, _, band in known]
    above = [100 * (band.high - band.fidelity) for _, _, band in known]
    axes.errorbar(sizes, middle, yerr=[below, above], color=_SOFT, fmt="o", ms=4, capsize=2, lw=1)
    for is_taken, size, band in known:
        if is_taken:
            axes.plot([size], [100 * band.fidelity], "o", color=_ACCENT, ms=6)
    axes.set_xlabel("size of the artifact, kB")
    axes.set_ylabel("fidelity, predicted, %")
    return _svg(figure)


def latency_plot(samples: dict[str, list[int]]) -> str:
    """Distribution of each precision's latency, the slowest hundredth cut off.

    Examples:
        >>> "<svg" in latency_plot({"int8": [2_000_000 + 100 * step for step in range(200)]})
        True
    """
    import numpy as np

    figure, axes = _figure(5.2, 2.6)
    colours = [_SOFT, _ACCENT, _INK]
    for colour, (name, values) in zip(colours, samples.items(), strict=False):
        micro = np.asarray(values) / 1e3
        shown = micro[micro <= np.percentile(micro, 99)]
        axes.hist(shown, bins=60, color=colour, alpha=0.65, label=f"{name}, median {np.median(micro):.1f} µs")
    axes.set_xlabel("latency, µs (one call, batch 1)")
    axes.set_yticks([])
    axes.legend(fontsize=7, frameon=False)
    return _svg(figure)


def bar_plot(title: str, unit: str, values: dict[str, float], show: Callable[[float], str]) -> str:
    """One horizontal bar per model, with its value as `show` writes it.

    Examples:
        >>> "<svg" in bar_plot("Size", "bytes", {"fp32": 4e6, "int8": 1e6}, lambda value: f"{value / 1e6:g} MB")
        True
    """
    figure, axes = _figure(5.2, 0.45 * len(values) + 0.7)
    names = list(values)[::-1]
    heights = [values[name] for name in names]
    axes.barh(names, heights, color=[_ACCENT if "artifact" in n else _SOFT for n in names], height=0.6)
    for y, value in enumerate(heights):
        axes.text(value, y, f" {show(value)}", va="center", color=_INK)
    axes.set_xlabel(f"{title}, {unit}")
    axes.set_xlim(0, max(heights) * 1.2)
    return _svg(figure)


def series_plot(names: Sequence[str], values: Sequence[float | None], label: str) -> str:
    """A value over entries in their order; gaps where it is not known, empty where it is known less than twice.

    Examples:
        >>> "<svg" in series_plot(["a1", "b2"], [0.97, 0.98], "fidelity")
        True
        >>> series_plot(["a1", "b2"], [None, 0.98], "fidelity")
        ''
    """
    points = [(place, value) for place, value in enumerate(values) if value is not None]
    if len(points) < 2:
        return ""
    figure, axes = _figure(5.2, 2.4)
    axes.plot([x for x, _ in points], [y for _, y in points], "o-", color=_ACCENT, ms=4, lw=1.2)
    shown = range(0, len(names), max(1, len(names) // 8))
    axes.set_xticks(list(shown), [names[place] for place in shown], rotation=30, ha="right", fontsize=7)
    axes.set_ylabel(label)
    return _svg(figure)


def trade_off_plot(points: Sequence[tuple[str, float, float]]) -> str:
    """Names at latency (seconds) and fidelity in [0, 1]; those that none beats in both are joined.

    Examples:
        >>> "<svg" in trade_off_plot([("fp32", 0.004, 1.0), ("int8", 0.002, 0.98)])
        True
    """
    if len(points) < 2:
        return ""
    figure, axes = _figure(5.2, 3.0)
    axes.set_xscale("log")
    axes.scatter([1e3 * x for _, x, _ in points], [100 * y for _, _, y in points], s=16, color=_SOFT)
    front = sorted(
        (x, y) for _, x, y in points if not any(a <= x and b >= y and (a, b) != (x, y) for _, a, b in points)
    )
    axes.plot([1e3 * x for x, _ in front], [100 * y for _, y in front], "o-", color=_ACCENT, ms=4, lw=1)
    for name, x, y in points:
        axes.annotate(name, (1e3 * x, 100 * y), fontsize=7, xytext=(3, 3), textcoords="offset points")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("latency, ms")
    axes.set_ylabel("fidelity, %")
    return _svg(figure)


class FrontTrial(Protocol):
    """A finished trial of a sweep, as its plot needs it."""

    @property
    def student(self) -> str:
        """Its student's name."""

    @property
    def target(self) -> str:
        """Its target's name."""

    @property
    def agreement(self) -> float:
        """Synthetic agreement, in [0, 1]."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def latency(self) -> float:
        """Seconds per image."""

    @property
    def front(self) -> bool:
        """Whether nothing beats it."""


def front_plot(trials: Sequence[FrontTrial]) -> str:
    """Agreement against size and against latency; the front joined, one colour per target.

    Examples:
        >>> from edgedafl.search.front import Trial
        >>> trials = [Trial("kept:0.5", "rpi4", 0, 0.97, 90_000, 0.002, "a", True)]
        >>> "<svg" in front_plot(trials)
        True
    """
    figure = _blank(8, 3.2)
    sides = figure.subplots(1, 2, sharey=True)
    targets = list(dict.fromkeys(t.target for t in trials))
    colours = dict(zip(targets, (_ACCENT, _INK, "#b45309", "#15803d"), strict=False))
    places: tuple[tuple[str, Callable[[FrontTrial], float]], ...] = (
        ("size, kB", lambda t: t.size / 1e3),
        ("latency, ms", lambda t: t.latency * 1e3),
    )
    for axes, (label, place) in zip(sides, places, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xscale("log")
        axes.set_xlabel(label)
        for target in targets:
            mine = sorted((t for t in trials if t.target == target), key=place)
            _front(axes, [(place(t), 100 * t.agreement, t) for t in mine], colours.get(target, _SOFT), target)
    sides[0].set_ylabel("synthetic agreement, %")
    sides[0].legend(fontsize=7, frameon=False)
    return _svg(figure)


def _front(axes: Any, points: list[tuple[float, float, FrontTrial]], colour: str, target: str) -> None:
    axes.scatter([x for x, _, _ in points], [y for _, y, _ in points], s=12, color=colour, alpha=0.4)
    front = [(x, y, t.student.rpartition("/")[2]) for x, y, t in points if t.front]
    axes.plot([x for x, _, _ in front], [y for _, y, _ in front], "o-", ms=4, lw=1, color=colour, label=target)
    for x, y, name in front:
        axes.annotate(name, (x, y), fontsize=6, xytext=(3, 3), textcoords="offset points")
