"""How a table fits into the columns of a terminal: what gives way, and in which order.

Numbers and identifiers stay whole. Names are shortened in their middle, texts are folded, and columns that the table
can do without are left out, before it is given up for a list of one line a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from dspy_cachectl.boundary.shown import shortened
from dspy_cachectl.showing.sheets import Giving

_EDGES = 2
_LEAST_NAME, _LEAST_TEXT, _LEAST_CUT = 12, 16, 28
_LONGEST_WHOLE = 40
"""What is longer is shortened in its middle too: it would leave nothing to the others, and break."""


@dataclass(frozen=True)
class Layout:
    """Which columns are shown, and how wide.

    Attributes:
        widths: The width of each column that is shown, by its place.
        left_out: The titles of those that are not, and have something to say.
        gap: How many blanks stand between two columns.
    """

    widths: dict[int, int]
    left_out: tuple[str, ...]
    gap: int


def lay_out(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int, giving: Giving) -> Layout | None:
    """Return how a table fits into so many columns of a terminal; None where it cannot.

    Args:
        titles: The titles.
        rows: The cells.
        width: How many columns there are.
        giving: What gives way.
    """
    most = [max([_word(title), *(cell_len(row[at]) for row in rows)]) for at, title in enumerate(titles)]
    least = [_least(title, most[at], giving) for at, title in enumerate(titles)]
    shown, left_out = list(range(len(titles))), []
    spare = _spare(titles, rows, giving)
    gap = _gap(shown, least, width)
    while gap is None:
        if not spare:
            return None
        at = spare.pop(0)
        shown.remove(at)
        if any(row[at] not in {"", "-"} for row in rows):
            left_out.append(titles[at])
        gap = _gap(shown, least, width)
    room = width - _taken(shown, least, gap)
    return Layout(_widened({at: least[at] for at in shown}, most, room), tuple(left_out), gap)


def _word(title: str) -> int:
    return max(map(cell_len, title.split()), default=0)


def _least(title: str, most: int, giving: Giving) -> int:
    if title in giving.right:
        return most
    if title in giving.whole:
        return min(most, _LONGEST_WHOLE)
    wanted = _LEAST_NAME if title in giving.names else _LEAST_CUT if title == giving.cut else _LEAST_TEXT
    return max(_word(title), min(most, wanted))


def _spare(titles: Sequence[str], rows: Sequence[Sequence[str]], giving: Giving) -> list[int]:
    """Return the places of what can be left out: first what says nothing, then what says the same in every row."""
    places = [titles.index(title) for title in giving.spare if title in titles]
    values = {at: {row[at] for row in rows} for at in places}
    return sorted(places, key=lambda at: (not values[at] <= {"", "-"}, len(values[at]) > 1))


def _gap(shown: list[int], least: list[int], width: int) -> int | None:
    return next((gap for gap in (2, 1) if _taken(shown, least, gap) <= width), None)


def _taken(shown: list[int], least: list[int], gap: int) -> int:
    return sum(least[at] for at in shown) + gap * (len(shown) - 1) + _EDGES


def _widened(widths: dict[int, int], most: Sequence[int], room: int) -> dict[int, int]:
    """Give out what room is left, always to the narrowest column that has not all it wants."""
    while room > 0:
        wanting = [at for at, width in widths.items() if width < most[at]]
        if not wanting:
            break
        widths[min(wanting, key=widths.__getitem__)] += 1
        room -= 1
    return widths


def as_table(
    titles: Sequence[str], rows: Sequence[Sequence[Text]], width: int, giving: Giving
) -> tuple[Table, tuple[str, ...]]:
    """Return a table that fits into so many columns, and what is left out of it.

    Args:
        titles: The titles.
        rows: The cells, harmless and in one line.
        width: How many columns there are.
        giving: What gives way.
    """
    plain = [[cell.plain for cell in row] for row in rows]
    layout = lay_out(titles, plain, width, giving)
    if layout is None:
        return _as_list(titles, rows), ()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, layout.gap - 1, 0, 0))
    for at, size in layout.widths.items():
        justify: Literal["left", "right"] = "right" if titles[at] in giving.right else "left"
        table.add_column(Text(titles[at]), justify=justify, width=size, no_wrap=titles[at] == giving.cut)
    for row in rows:
        table.add_row(*(_fitted(row[at], size, titles[at], giving) for at, size in layout.widths.items()))
    return table, layout.left_out


def _fitted(cell: Text, width: int, title: str, giving: Giving) -> Text:
    if title in {*giving.names, *giving.whole}:
        return Text(shortened(cell.plain, width), style=cell.style)
    return Text(cell.plain, style=cell.style, overflow="ellipsis" if title == giving.cut else "fold")


def _as_list(titles: Sequence[str], rows: Sequence[Sequence[Text]]) -> Table:
    """Return one line a value, for where there is hardly any room."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column()
    for row in rows:
        for title, cell in zip(titles, row, strict=True):
            table.add_row(Text(title), Text(cell.plain, style=cell.style, overflow="fold"))
        table.add_row("", "")
    return table
