"""What a processor can do at most, from its public specification."""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

__all__ = ["ProcessorSpec", "find_processor"]

IN_ORDER = "in-order"
GPU = "gpu"
# Related chips: what is known of one is known of the other, so a hold-out leaves out both.
_RELATED = {
    "RK3568": "RK3566", "BCM2837": "BCM2710", "Snapdragon 821": "Snapdragon 820", "Kirin 970": "Kirin 960",
    "Jetson Orin NX": "Jetson AGX Orin", "Jetson Orin Nano": "Jetson AGX Orin",
}  # fmt: skip
_INT8_BASE = 2.0  # over float32; what the dot-product instructions add to it is fitted


@dataclass(frozen=True)
class ProcessorSpec:
    """Where a network runs.

    Attributes:
        name: Of the chip.
        chip: The same, related ones under one.
        family: Core family: `in-order`, `A72`, `A76+` or `gpu`.
        macs: Multiply-accumulates per second at peak.
        bandwidth: Bytes per second.
        clock: GHz.
        threads: Cores in use.
        dot: Whether int8 runs on dot-product instructions.
    """

    name: str
    chip: str
    family: str
    macs: float
    bandwidth: float
    clock: float
    threads: int
    dot: bool


@functools.cache
def _data() -> dict[str, Any]:
    text = resources.files("edgedafl.latency.data").joinpath("chips.toml").read_text("utf-8")
    return tomllib.loads(text)


def find_processor(
    *names: str, precision: str, threads: int | None = 1, cores: str = "", backend: str = "cpu"
) -> ProcessorSpec | None:
    """Look a processor up by what it is called, the longest name that fits first.

    Args:
        names: Of the chip and the device, in any spelling; a clock in them (`1.8GHz`) wins.
        precision: `fp32`, `fp16` or `int8`.
        threads: Cores used; None takes the big ones.
        cores: `little cores` where only those are used.
        backend: `cpu` or `gpu`.

    Returns:
        None where the chip is not known, or cannot run the precision.

    Examples:
        >>> found = find_processor("Raspberry Pi 5", precision="int8")
        >>> found.family, find_processor("no such chip", precision="int8")
        ('A76+', None)
    """
    if backend == "gpu":
        return _gpu(names, precision)
    chip = _match(_data()["chip"], names)
    if chip is None or precision not in ("fp32", "fp16", "int8"):
        return None
    facts, types = _data()["chip"][chip], _data()["core"]
    listed = [(types[kind], ghz) for kind, count, ghz in facts["cores"] for _ in range(count)]
    if cores == "little cores":
        listed = [row for row in listed if row[0]["family"] == IN_ORDER] or listed[-4:]
    clock = next((float(m[1]) for m in (re.search(r"([\d.]+) ?GHz", name or "") for name in names) if m), None)
    if clock is not None:
        listed = [(core, clock) for core, _ in listed]
    big = [row for row in listed if row[0]["family"] == listed[0][0]["family"]]
    used = listed[: min(threads or len(big), len(listed))]
    first, ghz = used[0]
    factor = {"fp32": 1.0, "fp16": 2.0, "int8": _INT8_BASE}[precision]
    peak = sum(core["lanes"] * speed for core, speed in used) * 1e9 * factor
    dot = precision == "int8" and bool(first.get("dot"))
    related = _RELATED.get(chip, chip)
    return ProcessorSpec(chip, related, first["family"], peak, facts["bandwidth"] * 1e9, ghz, len(used), dot)


def _gpu(names: tuple[str, ...], precision: str) -> ProcessorSpec | None:
    chip = _match(_data()["gpu"], names)
    if chip is None or precision not in _data()["gpu"][chip]:
        return None
    facts = _data()["gpu"][chip]
    peak = facts[precision] * 1e12 / 2
    return ProcessorSpec(chip, _RELATED.get(chip, chip), GPU, peak, facts["bandwidth"] * 1e9, facts["clock"], 1, False)


def _match(table: dict[str, Any], names: tuple[str, ...]) -> str | None:
    spelled = " | ".join(name.lower() for name in names if name)
    keys = [(key.lower(), chip) for chip, facts in table.items() for key in (chip, *facts.get("also", ()))]
    fitting = [(len(key), chip) for key, chip in keys if key in spelled]
    return max(fitting)[1] if fitting else None
