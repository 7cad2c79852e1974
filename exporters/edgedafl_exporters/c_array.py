"""A model as C source, for programs without a file system."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["c_array_files"]

_PER_LINE = 12
_ALIGNMENT = 16  # as TFLite-Micro's interpreter asks for


def c_array_files(model: bytes, operators: Sequence[str]) -> dict[str, bytes]:
    """`model_data.h`, `model_data.cc`, and `operators.txt` for a resolver.

    Args:
        model: A .tflite file.
        operators: Names of its operators.

    Examples:
        >>> sorted(c_array_files(b"TFL3", ["CONV_2D"]))
        ['model_data.cc', 'model_data.h', 'operators.txt']
    """
    rows = (model[start : start + _PER_LINE] for start in range(0, len(model), _PER_LINE))
    body = "\n".join("    " + " ".join(f"0x{byte:02x}," for byte in row) for row in rows)
    header = (
        "#pragma once\n\nextern const unsigned char kModelData[];\n"
        f"constexpr unsigned int kModelDataSize = {len(model)};\n"
    )
    source = f'#include "model_data.h"\n\nalignas({_ALIGNMENT}) const unsigned char kModelData[] = {{\n{body}\n}};\n'
    calls = "".join(f"resolver.Add{_camel(name)}();\n" for name in operators)
    listing = f"// tflite::MicroMutableOpResolver<{len(operators)}> resolver;\n{calls}"
    return {"model_data.h": header.encode(), "model_data.cc": source.encode(), "operators.txt": listing.encode()}


def _camel(name: str) -> str:
    """`DEPTHWISE_CONV_2D` as `DepthwiseConv2D`, the way resolvers spell it."""
    return "".join(part if part == "2D" else part.capitalize() for part in name.split("_"))
