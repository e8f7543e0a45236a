"""The site is built without a warning, works from its folder, and asks no network."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docs.documented import ROOT
from tests.limits import SOON
from tests.page.browser import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["chromium"]

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(
        importlib.util.find_spec("mkdocs") is None and os.environ.get("CI", "").lower() != "true",
        reason="the site cannot be built: mkdocs is not installed",
    ),
]

LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^>]*>"
    r"|<link\b[^>]*\bhref=[\"']?(?:https?:)?//[^>]*>"
    r"|url\([\"']?(?:https?:)?//[^)]*\)|@import[^;]*//[^;]*;",
    flags=re.IGNORECASE,
)
"""What a browser loads by itself."""
MOST_BYTES = 150_000
SEARCHED = {
    "evaluate without the cache": "What people ask for",
    "bust the cache": "What people ask for",
    "read-only file system": "What people ask for",
    "search_runs": "MLflow with a flaky server",
    "unparsed": "Evaluating",
    "temperatures_lent": "Counters",
}
"""What people look for, and a page that they are shown."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does it."""
    folder = tmp_path_factory.mktemp("site")
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": python_path, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_nothing_is_loaded_from_a_network(site: Path) -> None:
    """Neither script, picture nor style, on no page; what people click on may lead there."""
    pages = [*site.rglob("*.html"), *site.rglob("*.css"), *site.rglob("*.svg")]
    assert len(pages) > 10
    found = {path.name: LOADED.findall(path.read_text(encoding="utf-8")) for path in pages}
    assert {} == {name: loaded for name, loaded in found.items() if loaded}


def test_pictures_are_small() -> None:
    """What a page shows is there before its reader looks at it."""
    pictures = [path for path in (ROOT / "docs").rglob("*") if path.suffix in {".svg", ".png"}]
    assert [] == [path.name for path in pictures if path.stat().st_size >= MOST_BYTES]


@pytest.mark.exhaustive
def test_it_works_from_its_folder(chromium: Browser, site: Path) -> None:
    """Every page opens in a browser, without a request beside files and without an error; and search finds."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(SOON * 1000)
    page = context.new_page()
    told: list[str] = []
    page.on("request", lambda request: told.append(request.url) if not request.url.startswith("file:") else None)
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    # What a server shows for a page that is missing lies in no folder of its own, and names all from the root.
    for path in sorted(set(site.rglob("*.html")) - {site / "404.html"}):
        page.goto(path.as_uri())
        page.locator("main").wait_for()
    for words, found in SEARCHED.items():
        page.goto((site / "index.html").as_uri())
        page.locator("input.md-search__input").click()
        page.keyboard.type(words)
        page.locator(".md-search-result__article", has_text=found).first.wait_for()
    page.locator(".md-search-result__link").first.click()
    page.wait_for_url(re.compile("counters"))
    assert [] == told
    context.close()
