"""Which precision to run, by what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Set

from edgedafl.quantize import within_drop
from edgedafl.runs import EMULATED, MeasuredLatency, Recommendation

__all__ = ["recommend"]

# int8 has to win by this much before it is called the faster one.
_WORTH_IT = 1.05


def recommend(
    measured: MeasuredLatency,
    agreements: Mapping[str, float],
    *,
    faithful: Set[str] = frozenset(),
    max_drop: float | None = None,
) -> Recommendation | None:
    """The fastest precision that keeps the answers; None where times mean nothing or none keeps them.

    Args:
        measured: Times by precision.
        agreements: With the teacher on synthetic images, in [0, 1], by precision.
        faithful: Precisions whose fidelity was judged and holds, whatever their agreement.
        max_drop: Agreement that any other may lose against fp32.

    Examples:
        >>> import json
        >>> import tempfile
        >>> from pathlib import Path
        >>> from edgedafl.latency.figure import read_measurement
        >>> path = Path(tempfile.mkdtemp()) / "latency.json"
        >>> times = {"fp32": [4_000_000] * 70, "int8": [2_000_000] * 70}
        >>> _ = path.write_text(json.dumps({"schema": 1, "samples_ns": times}))
        >>> found = recommend(read_measurement(path, "pi-in-the-lab"), {"fp32": 0.99, "int8": 0.988})
        >>> found.precision, found.gain
        ('int8', 2.0)
    """
    if measured.kind == EMULATED:
        return None
    medians = {kind: summary.median for kind, summary in measured.summaries.items()}
    kept = {kind: ns for kind, ns in medians.items() if kind in faithful or within_drop(agreements, kind, max_drop)}
    if not kept:
        return None
    widest = next(kind for kind in ("fp32", "fp16", "int8") if kind in kept)
    fastest = min(kept, key=lambda kind: kept[kind])
    gain = kept[widest] / kept[fastest]
    where = "this host" if measured.device == "local" else measured.device
    dropped = ", ".join(sorted(set(medians) - set(kept)))
    beside = f" {dropped} loses more agreement than allowed." if dropped else ""
    if fastest == widest or gain < _WORTH_IT:
        rest = ", ".join(f"{kind} {kept[widest] / ns:.2f} times" for kind, ns in kept.items() if kind != widest)
        text = (
            f"On {where} {widest} is the better artifact ({rest} as fast, measured in turn) unless size matters more."
        )
        return Recommendation(widest, text + beside if rest else f"On {where}: {widest}.{beside}")
    text = f"On {where} the {fastest} artifact is {gain:.2f} times as fast as {widest} (medians, measured in turn)."
    return Recommendation(fastest, text + beside, gain)
