"""Imports what the commands import that load nothing of DSPy."""

import importlib
import importlib.util
import pkgutil

import dspy_cachectl.cli
import dspy_cachectl.manage

for _package in (dspy_cachectl.cli, dspy_cachectl.manage):
    for _module in pkgutil.iter_modules(_package.__path__, f"{_package.__name__}."):
        importlib.import_module(_module.name)

for _name in ("dspy_cachectl.stores.disk", "rich.table", "typer.main"):
    importlib.import_module(_name)
if importlib.util.find_spec("typer._adapters"):  # not in every release
    importlib.import_module("typer._adapters")
