"""Weights files of PyTorch modules, as trainers leave them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgedafl.errors import UnsupportedModelError, UsageError

__all__ = ["load_weights"]


def load_weights(module: nn.Module, path: Path) -> None:
    """Put the weights of a file into a module; nothing in the file is run.

    Args:
        module: What a user's factory has built.
        path: A state dict of `torch.save`, alone or within a trainer's checkpoint, or a .safetensors file.

    Raises:
        UsageError: If there is no such file.
        UnsupportedModelError: If it holds something else, could run code, or does not fit the module.

    Examples:
        >>> import tempfile
        >>> path, module = Path(tempfile.mkdtemp()) / "weights.pt", nn.Linear(2, 2)
        >>> torch.save({"model": {f"module.{k}": torch.ones_like(v) for k, v in module.state_dict().items()}}, path)
        >>> load_weights(module, path)
        >>> module.bias.tolist()
        [1.0, 1.0]
    """
    if not path.is_file():
        raise UsageError(f"The weights file {str(path)!r} does not exist.", "Correct --weights.")
    state = _read_state(path)
    state = state.get("state_dict", state.get("model", state))
    state = _without_prefix(state, module)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UnsupportedModelError(
            f"{path.name} does not fit the factory's module: {reason}",
            "Use the factory that the weights were trained with.",
        ) from error


def _without_prefix(state: Mapping[str, Any], module: nn.Module) -> dict[str, Any]:
    """Names as the module has them: wrappers and trainers put `module.` or `model.` before each."""
    own = [*module.state_dict()]
    prefixes = {name[: -len(end)] for end in own[:3] for name in state if name.endswith("." + end)} | {""}
    best = max(sorted(prefixes), key=lambda prefix: sum(prefix + name in state for name in own))
    if not best:
        return dict(state)
    return {name.removeprefix(best): value for name, value in state.items() if name.startswith(best)}


def _read_state(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise UnsupportedModelError(f"{path.name} is not a readable safetensors file: {error}.") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling errors share no base class
        raise UnsupportedModelError(
            f"{path.name} is not a plain state dict, and loading it could run code: refused.",
            "Save model.state_dict(), or a .safetensors file.",
        ) from error
    if not isinstance(state, dict):
        raise UnsupportedModelError(f"{path.name} holds {type(state).__name__}; expected a state dict.")
    return state
