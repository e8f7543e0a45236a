"""A real browser for the tests of the page; a developer's desk without one skips, CI does not."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.limits import PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Root, who runs CI, has no sandbox; what is opened are the tests' own files. Containers have little shared memory.
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]
_PACKAGES = ("playwright", "axe_playwright_python")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One headless Chromium for a module."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    missing += [] if CHROMIUM else ["Chromium on the path"]
    if missing:
        why = f"the page is not looked at: there is no {' and no '.join(missing)}"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(why)
        pytest.skip(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=PATIENCE * 1000)
        yield browser
        browser.close()


class Opened:
    """A page that a browser shows.

    Attributes:
        page: The page.
        told: What it asked the network for, beside itself, and what it wrote to the console.
    """

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.told: list[str] = []
        itself = path.as_uri()
        page.on("request", lambda request: self.told.append(request.url) if request.url != itself else None)
        page.on("console", lambda message: self.told.append(message.text))
        page.on("pageerror", lambda error: self.told.append(str(error)))
        page.goto(itself)
        page.locator("main:not([aria-busy])").wait_for()

    @property
    def shown(self) -> list[str]:
        """The questions that are listed, in their order."""
        return self.page.locator("#grid tbody th").all_inner_texts()

    @property
    def count(self) -> str:
        """What is said of how many there are."""
        return self.page.locator("#count").inner_text()

    @property
    def answer(self) -> str:
        """What the open answer says, or nothing where none is open."""
        dialog = self.page.locator("dialog[open]")
        return dialog.inner_text() if dialog.count() else ""

    def focused(self) -> str:
        """Return the text of what has the focus."""
        return str(self.page.evaluate("document.activeElement.textContent"))

    def faults(self) -> list[str]:
        """Return what axe-core finds that is serious or critical."""
        from axe_playwright_python.sync_playwright import Axe

        found: list[dict[str, Any]] = Axe().run(self.page).response["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in {"serious", "critical"}]


@contextmanager
def opened(browser: Browser, path: Path, **options: Any) -> Iterator[Opened]:
    """Open a file in a context of its own.

    Args:
        browser: The browser.
        path: The file.
        options: Options of the context, such as `color_scheme`.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(PATIENCE * 1000)
    try:
        yield Opened(context.new_page(), path)
    finally:
        context.close()
