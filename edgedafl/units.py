"""Durations, sizes and shares with units, as people write them on a command line."""

from __future__ import annotations

import re

from edgedafl.errors import UsageError

__all__ = [
    "format_bytes",
    "format_count",
    "format_duration",
    "parse_bytes",
    "parse_duration",
    "parse_share",
]

_NUMBER = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([a-zA-Zµ%]*)\s*$")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0}
_SECONDS |= {"h": 3600.0}
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20}
_BYTES |= {"gib": 2**30}


def _split(text: str | float, what: str, example: str) -> tuple[float, str]:
    match = _NUMBER.match(str(text))
    if match is None:
        raise UsageError(f"{what} {text!r} is not a number with a unit.", f"Write it like {example}.")
    return float(match[1]), match[2]


def parse_duration(text: str | float) -> float:
    """Seconds of `"10m"`, `"5ms"`, `"90s"`; a bare number is seconds.

    Raises:
        UsageError: If the text is not a number with a known unit.

    Examples:
        >>> parse_duration("5ms"), parse_duration("10m"), parse_duration(90)
        (0.005, 600.0, 90.0)
    """
    value, unit = _split(text, "The duration", "90s, 10m or 5ms")
    if unit and unit not in _SECONDS:
        raise UsageError(f"The duration {text!r} has the unknown unit {unit!r}.", "Use ms, s, m or h.")
    return value * _SECONDS.get(unit, 1.0)


def parse_bytes(text: str | float) -> int:
    """Bytes of `"1.5MB"`, `"64KiB"`; a bare number is bytes.

    Raises:
        UsageError: If the text is not a number with a known unit.

    Examples:
        >>> parse_bytes("1.5MB"), parse_bytes("64KiB")
        (1500000, 65536)
    """
    value, unit = _split(text, "The size", "500KB, 1.5MB or 64KiB")
    if unit.lower() not in _BYTES:
        raise UsageError(f"The size {text!r} has the unknown unit {unit!r}.", "Use KB, MB, KiB or MiB.")
    return round(value * _BYTES[unit.lower()])


def parse_share(text: str | float) -> float:
    """A share in [0, 1] of `"98.5%"` or `0.985`.

    Raises:
        UsageError: If the value is outside [0, 1].

    Examples:
        >>> parse_share("98.5%"), parse_share(0.5)
        (0.985, 0.5)
    """
    value, unit = _split(text, "The share", "98.5% or 0.985")
    share = value / 100 if unit == "%" else value
    if unit not in ("", "%") or share > 1:
        raise UsageError(f"The share {text!r} is not between 0 and 1.", "Write it like 98.5% or 0.985.")
    return share


def format_bytes(size: float) -> str:
    """A short decimal size, e.g. `26.5 kB`.

    Examples:
        >>> format_bytes(26_512)
        '26.5 kB'
    """
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            return f"{size / limit:.3g} {unit}" if size < 1000 * limit else f"{size / limit:.0f} {unit}"
    return f"{size:.0f} B"


def format_count(count: float) -> str:
    """A short count, e.g. `61.7 k`, `1.81 G`.

    Examples:
        >>> format_count(1_814_073_344)
        '1.81 G'
    """
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return f"{count:.0f}"


def format_duration(seconds: float) -> str:
    """A short duration, e.g. `850 µs`, `3.21 ms`, `2:05`.

    Examples:
        >>> format_duration(0.00321), format_duration(125)
        ('3.21 ms', '2:05')
    """
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
