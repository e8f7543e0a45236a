"""The report page in a browser, against what is promised of it; and texts without their secrets."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.figures import Figure, compared
from benchmarks.rounds import Block, Round, interleaved, timed
from benchmarks.rows import row
from benchmarks.scene import Scene

FILTERING = """(text) => {
    const [search, began] = [document.getElementById("search"), performance.now()];
    search.value = text;
    search.dispatchEvent(new Event("input"));
    document.body.getBoundingClientRect();
    return (performance.now() - began) / 1000;
}"""
PART = "the password is in the vault, see https://host/a?b=c and sk-learn; def token(self) -> str: ... 0x9f3c "


@row("page", is_long=True)
def page(scene: Scene) -> Iterator[Figure]:
    """Opening the page of 1,000 questions by 5 repeats, and filtering it, by the clock, by 2 s and 0.2 s."""
    from playwright.sync_api import sync_playwright

    from tests.page.browser import ARGUMENTS, CHROMIUM, Opened
    from tests.page.large import large_page
    from tests.page.pages import written

    if CHROMIUM is None:
        return
    folder = scene.new_folder()
    folder.mkdir(parents=True)
    path, opening, filtering = written(large_page(), folder), [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for _ in range(scene.rounds):
            tab = browser.new_page()
            opening.append(timed(functools.partial(Opened, tab, path)))
            seconds = [tab.evaluate(FILTERING, text) for text in ("completion 7/3", "a", "prompt 9")]
            filtering += [Round(second, second) for second in seconds]
            tab.close()
        browser.close()
    for case, taken, promised in (("opening", opening, 2.0), ("filtering", filtering, 0.2)):
        yield compared("page", taken, [Round(promised, promised)] * len(taken), case=case, clock="wall")


@row("secrets", is_long=True)
def secrets(scene: Scene) -> Iterator[Figure]:
    """A text of a megabyte without its secrets, by a hundredth of it: 100 where the time grows with the text."""
    from dspy_cachectl.boundary.secrets import scrub, scrub_surely

    large = PART * (1_000_000 // len(PART))
    small = large[: len(large) // 100]

    @contextmanager
    def side(block: Block) -> Iterator[Block]:
        yield block

    for case, scrubbed in (("message", scrub), ("request", scrub_surely)):
        blocks = {"ours": functools.partial(scrubbed, large), "theirs": functools.partial(scrubbed, small)}
        sides = {name: functools.partial(side, block) for name, block in blocks.items()}
        taken = interleaved(sides, scene.few)
        yield compared("secrets", taken["ours"], taken["theirs"], case=case)
