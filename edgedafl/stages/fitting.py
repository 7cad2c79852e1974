"""Candidates against the limits that a run was given."""

from __future__ import annotations

from edgedafl.config import CompressConfig
from edgedafl.errors import UsageError
from edgedafl.runs import Candidate
from edgedafl.units import format_bytes, format_duration

__all__ = ["fits", "none_fits"]


def fits(candidate: Candidate, config: CompressConfig) -> bool:
    """Whether a candidate keeps all limits on latency, working memory and size.

    Examples:
        >>> small = Candidate("kept:0.5", 0.5, (3, 32, 32), 50_000, 10**6, 60_000, None)
        >>> fits(small, CompressConfig(max_size="50KB")), fits(small, CompressConfig(max_size="80KB"))
        (False, True)
    """
    limits = (
        (candidate.latency, config.max_latency),
        (candidate.memory, config.max_ram),
        (candidate.size, config.max_size),
    )
    return all(limit is None or (cost is not None and cost <= limit) for cost, limit in limits)


def none_fits(costed: list[Candidate], config: CompressConfig) -> UsageError:
    """Names the limit that cannot be met alone, or says that they exclude each other.

    Examples:
        >>> small = Candidate("kept:0.5", 0.5, (3, 32, 32), 50_000, 10**6, 60_000, 0.004)
        >>> print(none_fits([small], CompressConfig(max_latency="1ms")).message)
        No student fits --max-latency 1 ms: the fastest (kept:0.5) takes about 4 ms.
    """
    fastest = min(costed, key=lambda c: c.latency or 0.0)
    leanest = min(costed, key=lambda c: c.memory or 0)
    if config.max_latency is not None and (fastest.latency or 0.0) > config.max_latency:
        limit = f"--max-latency {format_duration(config.max_latency)}"
        least = f"the fastest ({fastest.name}) takes about {format_duration(fastest.latency or 0.0)}"
    elif config.max_ram is not None and (leanest.memory or 0) > config.max_ram:
        limit = f"--max-ram {format_bytes(config.max_ram)}"
        least = f"the leanest ({leanest.name}) needs about {format_bytes(leanest.memory or 0)}"
    else:
        return UsageError("No student fits all limits at once.", "Raise one of --max-latency, --max-ram, --max-size.")
    return UsageError(f"No student fits {limit}: {least}.", "Raise the limit to at least that.")
