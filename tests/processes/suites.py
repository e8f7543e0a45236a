"""Imports pytest with its plugins, but for the one that is tested."""

import importlib
import pkgutil
from importlib.metadata import entry_points

import _pytest

for _module in pkgutil.iter_modules(_pytest.__path__, "_pytest."):
    importlib.import_module(_module.name)
for _plugin in entry_points(group="pytest11"):
    if _plugin.name != "dspy_cachectl":
        _plugin.load()
for _name in ("hypothesis", "pdb", "unittest"):
    importlib.import_module(_name)
