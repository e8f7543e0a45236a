"""The picture of the wings in CONTRIBUTING is the one that the linter keeps."""

from __future__ import annotations

import re
import sys
from pathlib import Path

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
