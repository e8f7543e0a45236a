"""Each link of what lies beside docs/ leads somewhere; the build of the site looks at those in docs/."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.docs.documented import ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")
FILES = [
    *ROOT.glob("*.md"),
    *(ROOT / "examples").rglob("*.md"),
    *(ROOT / "notebooks").rglob("*.ipynb"),
]


def prose(path: Path) -> str:
    """Return what people read in a file, without its code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    """To a file that is there, and to a heading that it has."""
    for link in LINK.findall(prose(path)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
