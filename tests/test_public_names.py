"""The public names are what they say, whatever was imported before."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import dspy_cachectl as cachectl


def test_no_module_hides_a_name() -> None:
    """Importing a submodule puts it on the package; none has the name of something public."""
    modules = {module.name for module in pkgutil.iter_modules(cachectl.__path__) if not module.name.startswith("__")}
    for name in modules:
        importlib.import_module(f"dspy_cachectl.{name}")
    assert [] == [name for name in cachectl.__all__ if inspect.ismodule(getattr(cachectl, name))]
    assert set() == modules & set(cachectl.__all__)
