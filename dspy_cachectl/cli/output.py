"""How commands print: JSON for programs, tables for people, and no stored text that could steer a terminal."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspy_cachectl.boundary.shown import harmless, harmless_lines
from dspy_cachectl.boundary.writing import STANDARD_OUTPUT
from dspy_cachectl.reports.texts import as_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_ROWS = 500
"""After so many rows a table begins anew, so that a long one is printed as it is read."""


_LEAST = 20
"""How much room is left at least beside an indent."""


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


def print_line(text: str, *, indent: int = 0, before: int = 0) -> None:
    """Print a text of one line as it is. In a terminal it goes on below, `indent` further in, where there is no room.

    So many columns, `before` it, are taken already.

    It is broken between words only: a folder, a key or a command stays one that can be copied.
    """
    for line in _wrapped(harmless(text), indent, before) if sys.stdout.isatty() else [harmless(text)]:
        print(line)


def _wrapped(text: str, indent: int, before: int) -> Iterator[str]:
    from rich.cells import cell_len

    width, line = max(console().width, indent + _LEAST) - before, ""
    for at, word in enumerate(text.split(" ")):
        if at and line.strip() and cell_len(line) + 1 + cell_len(word) > width:
            yield line.rstrip()
            width += before
            before = 0
            line = " " * min(indent, max(width - cell_len(word), 0)) + word
        else:
            line += " " * bool(at) + word
    yield line


def print_fact(name: str, value: str, *, width: int = 12) -> None:
    """Print what something is called, and what it is, beside each other."""
    print_line(f"{name:<{width}} {value}", indent=width + 1)


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
    names: Collection[str] = (),
    cut: str | None = None,
    spare: Sequence[str] = (),
    nothing: str = "",
) -> None:
    """Print a table. Cells are text of any kind, and are shown as they are; one that is too long is folded.

    Args:
        columns: The titles.
        rows: The cells, an empty one for what is not there; read and printed bit by bit.
        right: The columns of numbers, which are not folded: a part of a number is another number.
        whole: Other columns that are not folded.
        names: The columns whose cells are shortened in their middle.
        cut: The column whose cells are cut at their end.
        spare: The columns that are left out, the first first, where a terminal is too narrow.
        nothing: What is printed where there are no rows.
    """
    from rich.text import Text

    from dspy_cachectl.showing.layout import as_table
    from dspy_cachectl.showing.sheets import Giving

    titles, left = tuple(columns), map(tuple, rows)
    giving = Giving(right=right, whole=whole, names=names, cut=cut, spare=spare)
    out, left_out = console(), dict[str, None]()
    some = list(itertools.islice(left, _ROWS))
    if not some:
        print_line(nothing)
    while some:
        cells = [[Text(harmless(cell) or "-") for cell in row] for row in some]
        table, without = as_table(titles, cells, out.width, giving)
        out.print(table)
        left_out.update(dict.fromkeys(without))
        some = list(itertools.islice(left, _ROWS))
    if left_out:
        print_line(f"Not shown for want of room: {', '.join(left_out)}. A wider terminal, or --json, shows all.")


def print_part(title: str, text: str | Text, style: str) -> None:
    """Print a text of any length under its title."""
    out = console()
    out.print()
    out.print(styled((title, style)), soft_wrap=True)
    out.print(styled((text, "")) if isinstance(text, str) else text, soft_wrap=True)


def styled(*parts: tuple[str, str]) -> Text:
    """Return text in several styles. The text is shown as it is, line by line.

    Args:
        parts: The pieces, each with its style.
    """
    from rich.text import Text

    return Text.assemble(*((harmless_lines(text), style) for text, style in parts))
