"""Each page runs from its first block to its last, against the counting endpoint."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.docs.documented import ROOT, blocks, sections
from tests.docs.running import blocks_of, script_of
from tests.endpoint import Endpoint
from tests.processes import Finished

DOCS = ROOT / "docs"
PAGES = ["../README.md", *sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))]
QUICK = {"index.md"}
"""The pages that run in each suite; the others take their time."""
ANSWERS = {f"What is {at} + {at}": [str(2 * at)] for at in range(10)} | {"capital of France": ["Paris"]}


def text_of(page: str) -> str:
    """Return a page's text."""
    return (DOCS / page).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=() if page in QUICK else pytest.mark.exhaustive) for page in PAGES]
)
def test_the_blocks_of_a_page_run(page: str, child: Callable[..., Finished], endpoint: Endpoint) -> None:
    """One after the other, as somebody runs them who follows the page."""
    script = script_of(text_of(page))
    if not script:
        return
    endpoint.configure(answers=ANSWERS, gold_field="answer")
    environment = {
        "OPENAI_API_BASE": endpoint.url,
        "OPENAI_API_KEY": "sk-test",
        "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
    }
    child(script, env=environment)


def test_what_does_not_run_says_why_and_is_little() -> None:
    """Of Python nothing that could run is left out."""
    left_out = [(page, block) for page in PAGES for block in blocks_of(text_of(page)) if block.reason]
    assert [] == [page for page, block in left_out if len(block.reason.split()) < 3]
    assert len(left_out) <= 9


def test_every_block_has_a_language() -> None:
    """So that it is known what is to be run."""
    bare = [f"{page}:{block.line}" for page in PAGES for block in blocks_of(text_of(page)) if not block.language]
    assert [] == bare


def test_what_pages_install_is_there() -> None:
    """Each extra that a page or the README names is one of the package's."""
    from importlib import metadata

    known = set(metadata.metadata("dspy-cachectl").get_all("Provides-Extra") or [])
    named = {
        extra
        for page in PAGES
        for extras in re.findall(r"dspy-cachectl\[([\w,]+)\]", text_of(page))
        for extra in extras.split(",")
    }
    assert set() == named - known


def test_no_task_takes_more_than_elsewhere() -> None:
    """The table counts what its page shows, and in no row of it is a number of ours the largest."""
    page = text_of("explanation/steps.md")
    shown = {heading.lower(): text for heading, text in sections(page).items()}
    rows = re.findall(r"^\| ([a-z ]+) \| (\d.+) \| (.*) \| (.+) \|$", page, flags=re.MULTILINE)
    assert list(shown) == [task for task, *_ in rows]
    for task, *cells in rows:
        ours, *others = filter(None, ([int(number) for number in re.findall(r"\d+", cell)] for cell in cells))
        assert all(one <= max(most) for one, most in zip(ours, zip(*others, strict=True), strict=True)), task
        python, bash = ("".join(blocks(shown[task], language)).split("\n") for language in ("python", "bash"))
        assert ours[0] == sum(map(bool, python)), task
        assert not any(bash) or ours[1] == sum(map(bool, bash)), task
