"""What a device has and lacks for the bundles of a target, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass

from edgedafl.devices.base import Device
from edgedafl.devices.facts import DeviceFacts
from edgedafl.targets import Target

__all__ = ["Finding", "check_device"]

_LEAST_FREE_KB = 50_000
_OLDEST_TENSORRT = 100_300
_NEWEST_TENSORRT = 110_499
# Instructions that make int8 worth it, by architecture.
_DOT_PRODUCTS = {"aarch64": {"asimddp"}, "x86_64": {"avx512_vnni", "avx_vnni"}}
_STEADY_GOVERNORS = ("performance", "userspace")
# Within so many degrees of the trip point a run will throttle.
_MARGIN_DEGREES = 10.0

_PACKAGES = {"onnxruntime": "onnxruntime", "litert": "ai_edge_litert"}
_PUSH = (
    "adb push benchmark_model /data/local/tmp, then adb shell chmod +x /data/local/tmp/benchmark_model "
    "(LiteRT's own, for this processor)."
)


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: What.
        ok: Whether it is as it should be; None where it only matters for the figures.
        detail: What was found.
        remedy: The command or the act that mends it; never run by us.
    """

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""


def check_device(facts: DeviceFacts, device: Device, target: Target | None = None) -> list[Finding]:
    """Compare what a device said; with a target, whether its bundles run there.

    Examples:
        >>> from edgedafl.devices.facts import read_facts
        >>> from edgedafl.devices.local import LocalDevice
        >>> device = LocalDevice()
        >>> len(check_device(read_facts(device), device)) > 0
        True
    """
    found = [_system(facts, target), _processor(facts), _space(facts)]
    if target is None or target.runtime in _PACKAGES:
        found += _python(facts, device, "onnxruntime" if target is None else target.runtime)
    if (target is not None and target.runtime == "tensorrt") or facts["trtexec"]:
        found.append(_tensorrt(facts))
    found += [*_clocks(facts, target), *_heat(facts)]
    if facts["load"]:
        cores = int(facts["cores"] or 1)
        busy = float(facts["load"]) > cores / 2
        remedy = "Stop other work before measuring." if busy else ""
        found.append(Finding("load", None if busy else True, f"{facts['load']} on {cores} cores", remedy))
    if facts.emulated or device.emulated:
        found.append(Finding("emulated", None, facts["emulated"] or "yes", "Its times say nothing about a device."))
    return found


def _system(facts: DeviceFacts, target: Target | None) -> Finding:
    words = ", ".join(filter(None, (facts["board"], facts["release"], facts["l4t"], facts["system"], facts["machine"])))
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(facts["machine"], facts["machine"])
    if target is not None and machine != target.architecture:
        return Finding("system", False, words, f"{target.name} is for {target.architecture}; choose another target.")
    return Finding("system", True, words)


def _processor(facts: DeviceFacts) -> Finding:
    wanted = _DOT_PRODUCTS.get(facts["machine"], set())
    has = wanted & facts.features
    name = facts["cpu"] or f"parts {facts['cpu_parts']}" if facts["cpu"] or facts["cpu_parts"] else facts["machine"]
    detail = f"{name}, {facts['cores'] or '?'} cores"
    if not wanted or not facts.features:
        return Finding("processor", True, detail)
    if has:
        return Finding("processor", True, f"{detail}, {' '.join(sorted(has))}")
    return Finding("processor", None, f"{detail}, no dot-product instructions", "int8 gains little; try fp32.")


def _space(facts: DeviceFacts) -> Finding:
    if not facts["free_kb"].isdigit():
        return Finding("space", None, "unknown", "")
    enough = int(facts["free_kb"]) >= _LEAST_FREE_KB
    detail = f"{int(facts['free_kb']) / 1000:.0f} MB free in {facts['scratch']}"
    return Finding("space", enough, detail, "" if enough else "Free some space there, or set TMPDIR.")


def _python(facts: DeviceFacts, device: Device, runtime: str) -> list[Finding]:
    """What runs a bundle's `bench`: Python with a runtime, or on phones without it LiteRT's own program."""
    if not facts["python"] and runtime == "litert":
        where = facts["benchmark_model"]
        return [Finding("benchmark_model", bool(where), where or "missing, as is Python", "" if where else _PUSH)]
    if not facts["python"]:
        return [
            Finding(
                "python", False, f"{device.python!r} does not start",
                "Install Python 3 there, or name its command: edgedafl device add NAME ADDRESS --python CMD.",
            )
        ]  # fmt: skip
    found = [Finding("python", True, facts["python"])]
    for name in ("numpy", _PACKAGES[runtime]):
        version, reason = facts[name], facts[f"missing.{name}"]
        remedy = "" if version else f"{device.python} -m pip install {name.replace('_', '-')}"
        found.append(Finding(name, bool(version), version or reason or "missing", remedy))
    return found


def _tensorrt(facts: DeviceFacts) -> Finding:
    text = facts["tensorrt"]
    if not facts["trtexec"]:
        return Finding("trtexec", False, "missing", "sudo apt-get install tensorrt (part of JetPack)")
    version = int(text) if text.isdigit() else 0
    if version < _OLDEST_TENSORRT:
        return Finding("trtexec", False, f"TensorRT {text or '?'}", "Install JetPack 6.1 or newer (TensorRT 10.3).")
    newest = "" if version <= _NEWEST_TENSORRT else "Newer than any release these bundles were written for."
    return Finding("trtexec", True if not newest else None, f"TensorRT {text}", newest)


def _clocks(facts: DeviceFacts, target: Target | None) -> list[Finding]:
    hint = target.power_hint if target is not None else ""
    found = []
    for policy, text in facts.group("clock").items():
        steady = any(f", {governor}," in text for governor in _STEADY_GOVERNORS)
        remedy = (
            "" if steady else hint or "echo performance | sudo tee /sys/devices/system/cpu/cpufreq/*/scaling_governor"
        )
        found.append(Finding(f"clock {policy}", True if steady else None, text, remedy))
    if facts["power_mode"]:
        found.append(Finding("power mode", None, facts["power_mode"], hint))
    return found


def _heat(facts: DeviceFacts) -> list[Finding]:
    found = []
    if facts["throttled"]:
        cool = facts["throttled"] == "0x0"
        remedy = (
            "" if cool else "It was throttled or under-powered since it started: cool it, use its own supply, restart."
        )
        found.append(Finding("throttled", cool or None, facts["throttled"], remedy))
    if facts["thermal_status"]:
        cool = facts["thermal_status"] == "0"
        found.append(Finding("thermal status", cool or None, facts["thermal_status"], "" if cool else "Let it cool."))
    limits = facts.group("throttles_at")
    for zone, degrees in facts.temperatures.items():
        limit = int(limits[zone]) / 1000 if limits.get(zone, "").isdigit() else None
        hot = limit is not None and degrees > limit - _MARGIN_DEGREES
        detail = f"{degrees:.1f} °C" + (f", throttles at {limit:.0f} °C" if limit else "")
        found.append(Finding(f"heat {zone}", None if hot else True, detail, "Let it cool." if hot else ""))
    return found
