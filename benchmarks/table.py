"""Writes the table of distillation results into `docs/benchmarks.md`.

    python -m benchmarks.table

Every line comes from `benchmarks/results/distill-*.json`; nothing is typed by hand.
"""

from __future__ import annotations

import json
import statistics
import string
from typing import Any

from benchmarks.common import ROOT

BEGIN, END = "<!-- distillation: begin -->", "<!-- distillation: end -->"
_ORDER = ("auto", "adversarial", "fast", "inversion", "blackbox", "dafl", "dfad", "zskt", "dfq", "noise", "real")


def rows() -> list[dict[str, Any]]:
    """One summary per result file."""
    found = []
    for path in sorted((ROOT / "results").glob("distill-*.json")):
        data = json.loads(path.read_text())
        runs = data["runs"]
        scores = [r["accuracy"] for r in runs]
        found.append(
            {
                "suite": runs[0]["suite"],
                "method": runs[0]["method"],
                "student": runs[0].get("student", ""),
                "teacher": runs[0]["teacher_accuracy"],
                "mean": statistics.mean(scores),
                "deviation": statistics.stdev(scores) if len(scores) > 1 else 0.0,
                "worst": min(scores),
                "seeds": len(scores),
                "seconds": max(r["seconds"] for r in runs),
                "machine": _machine(data),
                "date": data["date"],
            }
        )
    return sorted(found, key=lambda r: (r["suite"], _ORDER.index(r["method"]) if r["method"] in _ORDER else 99))


def _machine(data: dict[str, Any]) -> str:
    """What a result was measured on, in words."""
    if data.get("device", "cpu") != "cpu":
        return str(data["device"])
    machine = data["machine"]
    # Files without the instructions are older; all of them come from the same machine.
    return f"{machine['cpu']}, {machine.get('instructions', 'AVX512')}, {machine['threads']} threads"


def markdown() -> str:
    """The table; where several machines measured, their letters are explained below it."""
    head = ["suite", "method", "student", "teacher, %", "student, %", "worst seed", "seeds", "seconds", "date", "on"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    found = rows()
    letters = dict(zip(sorted({r["machine"] for r in found}), string.ascii_uppercase, strict=False))
    for r in found:
        cells = [
            r["suite"],
            r["method"],
            r["student"].rpartition(":")[2] if ".py:" in r["student"] else r["student"],
            f"{r['teacher']:.2f}",
            f"**{r['mean']:.2f}** ± {r['deviation']:.2f}",
            f"{r['worst']:.2f}",
            str(r["seeds"]),
            f"{r['seconds']:.0f}",
            r["date"],
            letters[r["machine"]],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    machines = "; ".join(f"{letter}, {machine}" for machine, letter in letters.items())
    return "\n".join([*lines, "", f"Machines: {machines}."])


def main() -> None:
    page = ROOT.parent / "docs" / "benchmarks.md"
    text = page.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n{markdown()}\n{END}{after}")


if __name__ == "__main__":
    main()
