"""What ONNX Runtime's kernels take for themselves while they run.

A convolution of integers adds up in 32 bits beside its output, unless the processor has a kernel that rounds at once.
What such a kernel asks of the channels was read in ONNX Runtime's sources (`mlas/lib/convsym.cpp`, `qlinearconv.cc`)
and measured on x86 with VNNI; on ARM it was read alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

__all__ = ["scratch_bytes"]

_POINTER = 8
_SUM = 4
# Channels that a kernel takes at a time.
_INPUTS_AT_ONCE = 4
_LEAST_OUTPUTS = 16
_CHANNELS_AT_ONCE = {"x86_64": 16, "aarch64": 8}


def scratch_bytes(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]], architecture: str) -> int:
    """Bytes that one node needs beside its inputs and outputs, at one thread.

    Args:
        node: Of a graph that ONNX Runtime has optimized.
        shapes: Of values and constants.
        architecture: `aarch64` or `x86_64`, with VNNI.

    Examples:
        >>> import onnx
        >>> node = onnx.helper.make_node("Relu", ["x"], ["y"])
        >>> scratch_bytes(node, {"x": (1, 8, 8, 8), "y": (1, 8, 8, 8)}, "aarch64")
        0
    """
    if node.op_type != "QLinearConv" or node.input[3] not in shapes or node.output[0] not in shapes:
        return 0
    given, weight, made = shapes[node.input[0]], shapes[node.input[3]], shapes[node.output[0]]
    values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    outputs, inputs, kernel = weight[0], weight[1], math.prod(weight[2:])
    groups = int(values.get("group", 1))
    pixels = math.prod(made) // outputs
    depthwise = inputs == 1 and outputs == groups
    rounds = _rounds_at_once(inputs, outputs, kernel, groups, architecture)
    found = 0 if rounds else _SUM * math.prod(made)
    if not values.get("channels_last", 0):
        found += math.prod(given) + math.prod(made)
    moved = kernel > 1 or any(n != 1 for n in values.get("strides", ())) or any(values.get("pads", ()))
    if depthwise or (moved and rounds):
        found += _POINTER * kernel * pixels
    elif moved:
        found += inputs * kernel * pixels
    return found


def _rounds_at_once(inputs: int, outputs: int, kernel: int, groups: int, architecture: str) -> bool:
    """Whether a kernel is there that needs no sums in 32 bits.

    Args:
        inputs: Channels of one group.
        outputs: All output channels.
        kernel: Pixels of the kernel.
        groups: Count of groups.
        architecture: `aarch64` or `x86_64`.
    """
    if groups > 1:
        return inputs == 1 and outputs == groups and groups % _CHANNELS_AT_ONCE.get(architecture, _LEAST_OUTPUTS) == 0
    if architecture == "aarch64" and kernel == 1:
        return False  # a product of matrices, whose sums are rounded afterwards
    return inputs % _INPUTS_AT_ONCE == 0 and outputs >= _LEAST_OUTPUTS and outputs % _INPUTS_AT_ONCE == 0
