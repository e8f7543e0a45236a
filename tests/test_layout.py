"""What CONTRIBUTING says of the layout is so."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import grimp

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]


def test_the_picture_is_the_contract() -> None:
    """CONTRIBUTING draws the wings in the order that import-linter holds, from the top down."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Wings")[2]
    picture = section.partition("```\n")[2].partition("```")[0]

    drawn = [re.split(r"\s{2,}", line)[0] for line in picture.splitlines()]

    assert [layer for layer in layers if layer != "__main__"] == drawn


def test_no_module_imports_the_wing_that_it_lies_in() -> None:
    """A circle of a wing's `__init__` and a module of it is none of siblings, which the linter looks at."""
    graph = grimp.build_graph("dspy_cachectl", exclude_type_checking_imports=False, cache_dir=None)

    upward = [
        f"{module} imports {wing}"
        for module in sorted(graph.modules)
        for wing in graph.find_modules_directly_imported_by(module)
        if module.startswith(f"{wing}.")
    ]

    assert not upward


def test_every_file_that_contributing_names_exists() -> None:
    """The stories of a call and the table of places name files that are there."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", text))

    assert "calls/lm.py" in named
    assert not [name for name in named if not any((base / name).exists() for base in (ROOT, ROOT / "dspy_cachectl"))]
