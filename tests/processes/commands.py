"""Imports what the commands import that load nothing of DSPy."""

import importlib
import pkgutil

import dspy_cachectl.cli
import dspy_cachectl.manage

for _package in (dspy_cachectl.cli, dspy_cachectl.manage):
    for _module in pkgutil.iter_modules(_package.__path__, f"{_package.__name__}."):
        importlib.import_module(_module.name)

for _name in ("dspy_cachectl.stores.disk", "rich.table", "typer._adapters", "typer.main"):
    importlib.import_module(_name)
