"""Public names: declared, importable, documented; nothing heavy on import."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import edgedafl
import edgedafl_exporters


def modules() -> list[str]:
    found = []
    for package in (edgedafl, edgedafl_exporters):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "templates" not in module.name and "__main__" not in module.name:
                found.append(module.name)
    return found


@pytest.mark.parametrize("name", modules())
def test_modules_declare_their_names_and_have_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, name
    if name.rsplit(".", 1)[-1] in ("data", "templates", "edgedafl_exporters"):
        return
    if name.startswith("edgedafl.graph.") and not hasattr(module, "__all__"):
        pytest.fail(f"{name} has no __all__")
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public), f"{name}.{public}"
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name}.{public} has no docstring"


@pytest.mark.parametrize("name", modules())
def test_no_module_leaks_names_defined_elsewhere_of_ours(name: str) -> None:
    """What a plain module (not a package's front) defines publicly is in its `__all__`."""
    module = importlib.import_module(name)
    if hasattr(module, "__path__") or not hasattr(module, "__all__") or ".executor.ops." in name:
        return
    own = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == name
    }
    assert own <= set(module.__all__), own - set(module.__all__)


def test_no_public_name_is_that_of_a_module_which_would_hide_it() -> None:
    own = {module.name for module in pkgutil.iter_modules(edgedafl.__path__)}
    assert not own & set(edgedafl.__all__)


def test_the_top_level_api_is_lazy_and_complete() -> None:
    assert all(getattr(edgedafl, name) is not None for name in edgedafl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        edgedafl.nothing  # noqa: B018
