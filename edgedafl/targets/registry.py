"""Targets by name: one TOML file each, plus aliases."""

from __future__ import annotations

import difflib
import functools
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from edgedafl.errors import UsageError

__all__ = ["ALIASES", "QuantizationScheme", "Target", "find_target", "list_targets"]

ALIASES = {
    "jetson": "jetson-orin-nano",
    "phone": "android-arm64",
    "raspberry-pi": "rpi5",
    "x86": "x86-64-vnni",
}


@dataclass(frozen=True)
class QuantizationScheme:
    """How a runtime wants its integers.

    Attributes:
        activations: `uint8` or `int8`.
        weights: `int8`.
        symmetric_activations: Zero point fixed at 0.
        per_channel: One weight scale per output channel.
        quantize_bias: Bias as int32 with its own DequantizeLinear; TensorRT refuses that.
        outputs: Whether outputs of weighted layers are quantized too; TensorRT fuses better
            with quantized inputs only.
        remainder: Float type of what stays unquantized: `float32` or `float16`.
    """

    activations: str
    weights: str
    symmetric_activations: bool
    per_channel: bool
    quantize_bias: bool
    outputs: bool
    remainder: str


@dataclass(frozen=True)
class Target:
    """One deployment target; see the TOML files for the sources of its figures.

    Attributes:
        name: `family-board`.
        title: For people.
        runtime: `onnxruntime` or `tensorrt`.
        runtime_range: Versions the bundle is made for.
        exporter: Default exporter plug-in.
        architecture: CPU architecture of the device: `aarch64` or `x86_64`.
        precision: Default precision.
        opset: Highest opset the exported model uses.
        ir_version: Highest IR version.
        channel_multiple: Channel counts that run without padding.
        scheme: Integer scheme.
        device: Facts for the latency estimate.
        notes: What a user should know.
        power_hint: Commands that fix clocks, printed and never run.
    """

    name: str
    title: str
    runtime: str
    runtime_range: str
    exporter: str
    architecture: str
    precision: str
    opset: int
    ir_version: int
    channel_multiple: int
    scheme: QuantizationScheme
    device: dict[str, Any]
    notes: str = ""
    power_hint: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A JSON form."""
        return {**vars(self), "scheme": vars(self.scheme)}


@functools.cache
def _load() -> dict[str, Target]:
    targets = {}
    for file in sorted(resources.files("edgedafl.targets").joinpath("data").iterdir(), key=str):
        if file.name.endswith(".toml"):
            data = tomllib.loads(file.read_text("utf-8"))
            scheme = QuantizationScheme(**data.pop("scheme"))
            targets[data["name"]] = Target(scheme=scheme, **data)
    return targets


def list_targets() -> list[Target]:
    """All known targets by name."""
    return list(_load().values())


def find_target(name: str) -> Target:
    """Look a target up by name or alias.

    Raises:
        UsageError: If there is none; near names are listed.
    """
    targets = _load()
    full = ALIASES.get(name, name)
    if full in targets:
        return targets[full]
    known = [*ALIASES, *targets]
    near = difflib.get_close_matches(name, known, 3, 0.4)
    nearest = f"Did you mean {' or '.join(near)}? " if near else ""
    raise UsageError(f"There is no target {name!r}.", f"{nearest}Known: {', '.join(known)}.")
