"""A table fits into a terminal: numbers and identifiers whole, names shortened, and what is left out is said."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from dspy_cachectl.boundary.shown import stands_for
from dspy_cachectl.showing.layout import as_table
from dspy_cachectl.showing.sheets import Giving

TITLES = ("key", "kind", "model", "spent", "what was said")
ROWS = [
    ["0123456789ab", "lm", "fireworks_ai/accounts/fireworks/models/llama-v3p1-70b", "1,234,567", "many words " * 9],
    ["ab0123456789", "plain-lm", "openai/模型模型模型模型模型模型", "8", "short"],
]
GIVING = Giving(right=("spent",), whole=("key",), names=("model",), spare=("kind",))


def drawn(width: int, giving: Giving = GIVING) -> tuple[list[str], tuple[str, ...]]:
    rows = [[Text(cell) for cell in row] for row in ROWS]
    table, left_out = as_table(TITLES, rows, width, giving)
    out = Console(file=io.StringIO(), width=width, color_system=None)
    out.print(table)
    return out.file.getvalue().splitlines(), left_out  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [32, 40, 60, 61, 72, 80, 100, 120, 300])
def test_no_line_is_wider_and_what_identifies_is_whole(width: int) -> None:
    """At every width; all words of a text are there, and each shortened name stands for the whole one."""
    lines, left_out = drawn(width)
    text = " ".join(" ".join(lines).split())
    assert [] == [line for line in lines if cell_len(line) > width]
    assert {"0123456789ab", "ab0123456789"} <= set(text.split())
    assert "1,234,567" in text
    assert 9 == text.count("many")
    assert left_out in {(), ("kind",)}
    for row in ROWS if width >= 60 else ():
        assert any(word == row[2] or stands_for(word, row[2]) for word in text.split())


def test_with_room_nothing_is_changed() -> None:
    """Where a table fits, it is as it is."""
    lines, left_out = drawn(300)
    assert () == left_out
    assert all(cell.strip() in "\n".join(lines) for row in ROWS for cell in row)


def test_what_says_nothing_goes_first_and_unsaid() -> None:
    """An empty column goes before one that says something, and nobody misses it."""
    rows = [[Text("x" * 30), Text("-"), Text("y" * 30)], [Text("x" * 30), Text("-"), Text("z" * 30)]]
    giving = Giving(whole=("a", "c"), spare=("c", "b"))
    table, left_out = as_table(("a", "b", "c"), rows, 64, giving)
    assert (2, ()) == (len(table.columns), left_out)
