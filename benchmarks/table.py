"""Writes the table of distillation results into `docs/benchmarks.md`.

    python -m benchmarks.table

Every line comes from `benchmarks/results/distill-*.json`; nothing is typed by hand.
"""

from __future__ import annotations

import json
import statistics
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
                "machine": f"{data['machine']['cpu']}, {data['machine']['threads']} threads"
                if data.get("device", "cpu") == "cpu"
                else data["device"],
                "date": data["date"],
            }
        )
    return sorted(found, key=lambda r: (r["suite"], _ORDER.index(r["method"]) if r["method"] in _ORDER else 99))


def markdown() -> str:
    """The table."""
    head = ["suite", "method", "student", "teacher, %", "student, %", "worst seed", "seeds", "seconds", "date"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for r in rows():
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
        ]
        lines.append("| " + " | ".join(cells) + " |")
    machines = sorted({r["machine"] for r in rows()})
    return "\n".join([*lines, "", f"Machine: {'; '.join(machines)}."])


def main() -> None:
    page = ROOT.parent / "docs" / "benchmarks.md"
    text = page.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n{markdown()}\n{END}{after}")


if __name__ == "__main__":
    main()
