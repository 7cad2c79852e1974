"""What a deployment target is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

__all__ = ["QuantizationScheme", "Target"]


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
        least_weight_bits: Fewest mean bits of a weight in the file, 3.5 to 8: below 8 its runtime takes weights apart
            when it loads them (see `graph.packed`), or computes with them as they are.
        nibbles: Whether weights of fewer bits have four, two in a byte, and nothing between four and eight; depthwise
            layers keep eight (LiteRT).
    """

    activations: Literal["uint8", "int8"]
    weights: Literal["int8"]
    symmetric_activations: bool
    per_channel: bool
    quantize_bias: bool
    outputs: bool
    remainder: Literal["float32", "float16"]
    least_weight_bits: Annotated[float, Field(ge=3.5, le=8)] = 8.0
    nibbles: bool = False


@dataclass(frozen=True)
class Target:
    """One deployment target; see the TOML files for the sources of its figures.

    Attributes:
        name: `family-board`.
        title: For people.
        runtime: `onnxruntime`, `tensorrt`, `executorch` or `litert`.
        runtime_range: Versions the bundle is made for.
        exporter: Default exporter plug-in.
        architecture: CPU architecture of the device: `aarch64`, `x86_64`; `cortex-m`, `xtensa` of microcontrollers.
        precision: Default precision.
        opset: Highest opset the exported model uses.
        ir_version: Highest IR version.
        channel_multiple: Channel counts that run without padding.
        scheme: Integer scheme.
        device: Facts for the latency estimate; empty where none can be made.
        input: What files take: images in `model` space, or `pixels` of 0 to 255 (LiteRT).
        notes: What a user should know.
        power_hint: Commands that fix clocks, printed and never run.
    """

    name: str
    title: str
    runtime: Literal["onnxruntime", "tensorrt", "executorch", "litert", "openvino"]
    runtime_range: str
    exporter: str
    architecture: Literal["aarch64", "x86_64", "cortex-m", "xtensa"]
    precision: Literal["int8", "fp16", "fp32"]
    opset: int
    ir_version: int
    channel_multiple: int
    scheme: QuantizationScheme
    device: dict[str, Any]
    input: Literal["model", "pixels"] = "model"
    notes: str = ""
    power_hint: str = ""

    @property
    def is_microcontroller(self) -> bool:
        """Whether the model is linked into a program, which has no files."""
        return self.architecture in ("cortex-m", "xtensa")

    def to_dict(self) -> dict[str, Any]:
        """A JSON form."""
        return {**vars(self), "scheme": vars(self.scheme)}
