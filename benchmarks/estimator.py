"""How well the estimator predicts devices and networks it has not seen.

    python -m benchmarks.estimator --rows rows.json     judge it on these rows
    python -m benchmarks.estimator --runtime ncnn       only this runtime's rows
    python -m benchmarks.estimator --write-bands        set the bands from the packaged rows

A rows file is a list of measurements, or an object with `measurements` and `models` (layer tables);
each measurement has `runtime`, `backend`, `device`, `soc`, `threads`, `power_mode`, `precision`,
`batch`, `arch` and `latency_ms`. For every row the prior is fitted without its chip (related chips
included) and without its network; the device's own rows of other networks serve as calibration:
none (tier C), three drawn at random (B), all (A where there are fifteen; for int8 its rows in
floating point too, which are also tried alone).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import print_rows, write_result
from edgedafl.errors import UsageError
from edgedafl.latency.estimator import Published, Row, mark_releases, packaged_rows, read_rows

BANDS = Path(__file__).resolve().parent.parent / "edgedafl" / "latency" / "data" / "bands.json"
# A little above the 90th percentile of the factors: other people's boards vary more.
_MARGIN = 1.05
_FEWEST = 20


@dataclass(frozen=True)
class Guess:
    """One held-out row under one amount of calibration."""

    family: str
    precision: str
    scenario: str
    tier: str
    factor: float
    signed: float
    inside: bool


def guesses(rows: tuple[Row, ...], judged: tuple[Row, ...]) -> list[Guess]:
    """Predict every judged row without its chip and network."""
    published, random = Published(rows), np.random.default_rng(0)
    set_ups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        set_ups[row.runtime, row.device, row.precision].append(row)
    found = []
    for row in judged:
        own = [r for r in set_ups[row.runtime, row.device, row.precision] if r.architecture != row.architecture]
        three = [own[i] for i in random.permutation(len(own))[:3]]
        floats = _floats(row, set_ups) if row.precision == "int8" else []
        scenarios: dict[str, tuple[list[Row], list[Row]]] = {"spec only": ([], [])}
        if own:
            scenarios |= {"3 networks": (three, []), "all others": (own, floats)}
        if floats:
            scenarios["floats"] = ([], floats)
        for scenario, (given, in_float) in scenarios.items():
            try:
                guess = published.predict(
                    row.work, row.place, row.precision, row.runtime, own=given, floats=in_float,
                    older=row.older, leave_out=(row.place.chip, row.architecture),
                )  # fmt: skip
            except UsageError:
                continue
            ratio = guess.seconds / row.seconds
            factor = max(ratio, 1 / ratio)
            found.append(
                Guess(row.place.family, row.precision, scenario, guess.tier, factor, ratio - 1, factor <= guess.band)
            )
    return found


def _floats(row: Row, set_ups: dict[tuple[str, str, str], list[Row]]) -> list[Row]:
    """Its device's rows of other networks in floating point, the wider precision if there are both."""
    for precision in ("fp32", "fp16"):
        rows = set_ups.get((row.runtime, row.device, precision), [])
        others = [r for r in rows if r.architecture != row.architecture]
        if others:
            return others
    return []


def table(found: list[Guess]) -> list[dict[str, object]]:
    groups: dict[tuple[str, str, str], list[Guess]] = defaultdict(list)
    for guess in found:
        groups[guess.family, guess.precision, guess.scenario].append(guess)
    rows: list[dict[str, object]] = []
    for (family, precision, scenario), members in sorted(groups.items()):
        errors = np.abs([g.signed for g in members])
        rows.append(
            {
                "family": family,
                "precision": precision,
                "calibration": scenario,
                "rows": len(members),
                "median error %": round(100 * float(np.median(errors)), 1),
                "mean error %": round(100 * float(errors.mean()), 1),
                "P90 factor": round(float(np.quantile([g.factor for g in members], 0.9)), 2),
                "in band %": round(100 * float(np.mean([g.inside for g in members])), 1),
            }
        )
    return rows


def bands(found: list[Guess]) -> dict[str, float]:
    groups: dict[str, list[float]] = defaultdict(list)
    for guess in found:
        by_floats = " by floats" if guess.scenario == "floats" and guess.tier == "B" else ""
        groups[f"{guess.family} {guess.precision} {guess.tier}{by_floats}"].append(guess.factor)
    return {
        name: round(_MARGIN * float(np.quantile(factors, 0.9)), 2)
        for name, factors in sorted(groups.items())
        if len(factors) >= _FEWEST
    }


def _print(rows: list[dict[str, object]]) -> None:
    print_rows(list(rows[0]), [[str(value) for value in row.values()] for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description="Held-out error of the latency estimator.")
    parser.add_argument("--rows", type=Path, help="rows to judge by; the packaged ones where not given")
    parser.add_argument("--runtime", default="", help="judge by rows of runtimes whose name begins so")
    parser.add_argument("--write-bands", action="store_true", help="set the package's bands")
    parser.add_argument("--no-write", action="store_true", help="do not write the result file")
    args = parser.parse_args()
    packaged = packaged_rows()
    try:
        judged = read_rows(args.rows) if args.rows else packaged
    except UsageError as error:
        parser.error(f"{error.message} {error.hint}")
    known, asked = {row.identity for row in packaged}, {row.identity for row in judged}
    rows_known = mark_releases((*packaged, *(row for row in judged if row.identity not in known)))
    judged = tuple(r for r in rows_known if r.identity in asked and r.runtime.startswith(args.runtime))
    found = guesses(rows_known, judged)
    if args.write_bands:
        about = "90th percentile, and a little more, of the factor between estimate and truth; benchmarks/estimator.py"
        BANDS.write_text(json.dumps({"about": about, "bands": bands(found)}, indent=1) + "\n")
    rows = table(found)
    _print(rows)
    tiers = defaultdict(list)
    for guess in found:
        tiers[guess.tier].append(guess)
    summary = [
        {
            "tier": tier,
            "rows": len(members),
            "median error %": round(100 * float(np.median(np.abs([g.signed for g in members]))), 1),
            "P90 factor": round(float(np.quantile([g.factor for g in members], 0.9)), 2),
            "in band %": round(100 * float(np.mean([g.inside for g in members])), 1),
        }
        for tier, members in sorted(tiers.items())
    ]
    _print(summary)
    inside = float(np.mean([g.inside for g in found]))
    print(f"all: {len(judged)} rows, {len(found)} estimates, {100 * inside:.1f} % within their band")
    if not args.no_write:
        write_result("estimator", {"rows": rows, "tiers": summary, "inside": inside, "judged": len(judged)})


if __name__ == "__main__":
    main()
