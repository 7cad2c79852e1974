"""Frozen dataclasses as JSON and back: every field is looked at when a file is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

__all__ = ["adapter_of", "read_result", "result_to_dict"]

_Result = TypeVar("_Result")
_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def read_result(data: Mapping[str, Any], form: type[_Result]) -> _Result:
    """A result, or a whole record.

    Args:
        data: Its JSON form.
        form: Its class.

    Raises:
        ValueError: If something is missing or of another type.

    Examples:
        >>> from edgedafl.runs.results import KeptFloat
        >>> read_result({"layer": "conv1", "sensitivity": 0.25, "agreement": 0.98}, KeptFloat)
        KeptFloat(layer='conv1', sensitivity=0.25, agreement=0.98)
    """
    try:
        found: _Result = adapter_of(form).validate_python(dict(data))
        return found
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise ValueError(f"it lacks {place!r}") from error
        raise ValueError(f"{place} = {first['input']!r}: {first['msg']}") from error


def result_to_dict(result: Any) -> dict[str, Any]:
    """The JSON form that `read_result` reads; what is not known is left out.

    Examples:
        >>> from edgedafl.runs.results import KeptFloat
        >>> result_to_dict(KeptFloat("conv1", 0.25, 0.98))
        {'layer': 'conv1', 'sensitivity': 0.25, 'agreement': 0.98}
    """
    return {name: value for name, value in asdict(result).items() if value is not None and value != ""}


def adapter_of(form: type[Any]) -> TypeAdapter[Any]:
    """What validates a class and knows its JSON Schema; building one takes milliseconds.

    Examples:
        >>> from edgedafl.runs.results import KeptFloat
        >>> adapter_of(KeptFloat).json_schema()["required"]
        ['layer', 'sensitivity', 'agreement']
    """
    return _ADAPTERS.setdefault(form, _ADAPTERS.get(form) or TypeAdapter(form))
