"""A bar says how much is done, to whoever watches."""

from __future__ import annotations

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dspy_cachectl.boundary.shown import harmless
from dspy_cachectl.reports.progress_bar import progress
from dspy_cachectl.showing.notebook import NotebookLine
from tests.terminals.screens import watched


def test_a_bar_shows_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    """How much of how much, and the facts beside it; a name with brackets is a name."""
    with progress("[/red] program", shown=True) as show:
        show(2, 3, lambda: "score 0.500")
    captured = capsys.readouterr()
    assert all(part in captured.err for part in ("[/red] program", "2/3", "score 0.500"))
    assert "" == captured.out


@pytest.mark.parametrize("shown", [False, None])
def test_nobody_is_shown_nothing(shown: bool | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Where it is not wanted, or no terminal is there, nothing is written and no fact is asked for."""
    with progress("program", shown=shown) as show:
        show(2, 3, lambda: pytest.fail("asked for facts"))
    assert ("", "") == capsys.readouterr()


@pytest.mark.parametrize("name", ["llama [/INST]", "[link=file:///etc]x", "\x1b]0;title\x07\x9b2J"])
def test_a_name_is_shown_as_it_is(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither markup nor control characters of a name, or of what is said beside the bar, are obeyed."""
    with progress(name, shown=True) as show:
        show(1, 2, lambda: name)
    said = capfd.readouterr().err
    assert 2 <= "".join(said.split()).count("".join(harmless(name).split()))
    assert not {"\x07", "\x9b"} & set(said)


class Published:
    """A notebook's publisher that remembers."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def publish(self, **message: Any) -> None:
        self.messages.append(message)


def test_a_line_in_a_notebook_is_written_over_and_ends_with_the_last_word() -> None:
    """One line, changed now and then and not each time, whoever works on it; a name in it is text."""
    published = Published()
    with contextlib.closing(NotebookLine(published, "<b>program</b>")) as line, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda done: line.show(done, 1000, lambda: f"score {done}"), range(1000)))
        line.show(1000, 1000, lambda: "score 1")
    first, *changes = published.messages
    assert (False, {True}) == (first["update"], {message["update"] for message in changes})
    assert 1 == len({message["transient"]["display_id"] for message in published.messages})
    assert len(changes) < 500
    data = changes[-1]["data"]
    assert "<b>program</b> 1,000/1,000 · score 1" == data["text/plain"]
    assert "&lt;b&gt;program&lt;/b&gt; 1,000/1,000" in data["text/html"]


SHOWS = """
from dspy_cachectl.reports.progress_bar import progress
with progress("a-program-with-a-name-of-many-letters-and-words-in-it", shown=True) as show:
    show(60, 300, lambda: "what is done is said in very many words, which are more than there is room for: 7 requests")
    for done in range(120, 301, 60):
        show(done, 300, lambda: "score 0.517 · 3 failed · 412 requests, 8 served · 123,456 tokens spent, 0 saved")
"""


@pytest.mark.parametrize(
    "columns", [80, *(pytest.param(width, marks=pytest.mark.exhaustive) for width in (60, 120, 200))]
)
def test_how_much_how_long_and_the_score_stay_in_a_narrow_terminal(columns: int, tmp_path: Path) -> None:
    """The bar and the name shrink, what else there is to say goes from its end, and numbers are never cut."""
    seen = watched(["-c", SHOWS], columns, cwd=tmp_path)
    assert (0, []) == (seen.code, seen.too_wide(columns)), seen.text
    line = next(line for line in seen.lines if "300/300" in line)
    assert re.search(r"300/300 \d:\d\d:\d\d score 0\.517( · |$)", line), line
    assert line.startswith("a-prog")
    facts = line.partition("score")[2]
    assert re.fullmatch(r" 0\.517( · 3 failed( · 412 requests, 8 served( · 123,456 tokens spent, 0 saved)?)?)?", facts)
    assert (columns >= 200) is facts.endswith("0 saved")
