"""How commands print: JSON for programs, tables for people, and no stored text that could steer a terminal."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dspy_cachectl.boundary.shown import harmless, harmless_lines
from dspy_cachectl.boundary.writing import STANDARD_OUTPUT
from dspy_cachectl.reports.texts import as_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_ROWS = 500
"""After so many rows a table begins anew, so that a long one is printed as it is read."""
_LEAST = 16
"""How much room is left at least for a column that is cut."""


class OutputError(OSError):
    """The standard output takes no more."""


def print_json(value: Any) -> None:
    """Print a value as JSON, in ASCII so that it survives any pipe and any terminal."""
    print(json.dumps(as_json(value), indent=2))


def print_json_lines(items: Iterable[Any]) -> None:
    """Print one JSON array, each item on a line of its own as soon as it is there."""
    # Nothing is begun before it is known that there is something to be read.
    before = "["
    for item in items:
        print(before)
        print(json.dumps(as_json(item)), end="")
        before = ","
    print("[\n]" if before == "[" else "\n]")


def print_line(text: str) -> None:
    """Print a text in one line, as it is."""
    print(harmless(text))


@contextlib.contextmanager
def aside_of(file: Path) -> Iterator[None]:
    """Print what the block prints to standard error, where standard output is the file that a command writes."""
    with contextlib.redirect_stdout(sys.stderr if str(file) == STANDARD_OUTPUT else sys.stdout):
        yield


def check_not_both(file: Path, *, as_json: bool) -> None:
    """Raise where a command is to write both a file and JSON to standard output."""
    if as_json and str(file) == STANDARD_OUTPUT:
        import typer

        raise typer.BadParameter("standard output is the file already", param_hint="--json")


def console() -> Console:
    """Return a console that writes whole lines where nobody watches: nothing is cut to a width in a pipe."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 1000)


def print_table(
    columns: Iterable[str],
    rows: Iterable[Iterable[str]],
    *,
    right: Collection[str] = (),
    whole: Collection[str] = (),
    cut: str | None = None,
    nothing: str = "",
) -> None:
    """Print a table. Cells are text of any kind, and are shown as they are; one that is too long is folded.

    Args:
        columns: The titles.
        rows: The cells, an empty one for what is not there; read and printed bit by bit.
        right: The columns of numbers, which are not folded: a part of a number is another number.
        whole: Other columns that are not folded.
        cut: The column that gets the room that the others leave, its cells cut to it.
        nothing: What is printed where there are no rows.
    """
    titles, left = tuple(columns), map(tuple, rows)
    some = list(itertools.islice(left, _ROWS))
    if not some:
        print(nothing)
    while some:
        _print_rows(titles, some, right=right, whole={*right, *whole}, cut=cut)
        some = list(itertools.islice(left, _ROWS))


def _print_rows(
    titles: tuple[str, ...],
    rows: list[tuple[str, ...]],
    *,
    right: Collection[str],
    whole: Collection[str],
    cut: str | None,
) -> None:
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    out = console()
    cells = [tuple(harmless(cell) or "-" for cell in row) for row in rows]
    widths = {title: max([cell_len(title), *(cell_len(row[at]) for row in cells)]) for at, title in enumerate(titles)}
    left = out.width - sum(width for title, width in widths.items() if title != cut) - 2 * len(titles)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for title, width in widths.items():
        if title == cut:
            table.add_column(title, no_wrap=True, width=min(max(left, _LEAST), width))
        else:
            justify: Literal["left", "right"] = "right" if title in right else "left"
            table.add_column(title, justify=justify, min_width=width if title in whole else None)
    for row in cells:
        overflows: Iterator[Literal["ellipsis", "fold"]] = ("ellipsis" if title == cut else "fold" for title in titles)
        table.add_row(*(Text(cell, overflow=overflow) for cell, overflow in zip(row, overflows, strict=True)))
    out.print(table)


def styled(*parts: tuple[str, str]) -> Text:
    """Return text in several styles. The text is shown as it is, line by line.

    Args:
        parts: The pieces, each with its style.
    """
    from rich.text import Text

    return Text.assemble(*((harmless_lines(text), style) for text, style in parts))
