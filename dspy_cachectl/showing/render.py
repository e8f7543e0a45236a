"""Sheets for people: as text, as a panel in a terminal, and as HTML in a notebook.

What is on a sheet is decided by whoever made it; here is only how it looks.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from dspy_cachectl.boundary.shown import harmless, harmless_html
from dspy_cachectl.showing.layout import as_table
from dspy_cachectl.showing.pictures import WIDTH, as_svg
from dspy_cachectl.showing.sheets import Cell, Part, Sheet, Tone

_TEXT_WIDTH = 80
_RICH_STYLES = {
    Tone.PLAIN: "",
    Tone.LABEL: "dim",
    Tone.GOOD: "bold green",
    Tone.BAD: "bold red",
    Tone.EVEN: "bold cyan",
    Tone.UNSURE: "bold yellow",
}
# Text and ground are both set, so that the words can be read whatever the notebook's own colours are.
_HTML_COLOURS = {
    Tone.GOOD: "color:#fff;background:#1a6e3c",
    Tone.BAD: "color:#fff;background:#a3262a",
    Tone.EVEN: "color:#fff;background:#1d5f8a",
    Tone.UNSURE: "color:#222;background:#f2c14e",
}
# Everything else takes the notebook's colours, light or dark; lines are half of whatever the text is.
_HTML_FRAME = (
    "border:1px solid rgba(128,128,128,.5);border-radius:6px;padding:10px 14px;max-width:72em;line-height:1.45"
)
_HTML_CELL = "text-align:left;vertical-align:top;padding:2px 14px 2px 0;background:transparent;white-space:normal"
_HTML_LABEL = f"{_HTML_CELL};font-weight:normal;opacity:.75;white-space:nowrap"
_HTML_HEADER = f"{_HTML_CELL};font-weight:bold;border-bottom:1px solid rgba(128,128,128,.5)"
_HTML_TABLE = "border-collapse:collapse;margin:2px 0 0;background:transparent"
_HTML_TITLE = "font-weight:bold;margin-top:10px"


def as_text(sheet: Sheet) -> str:
    """Write a sheet as plain text."""
    written = io.StringIO()
    console = Console(file=written, width=_TEXT_WIDTH, color_system=None, force_terminal=False, force_jupyter=False)
    console.print(Group(_rich(Cell(sheet.title)), _body(sheet)))
    return "\n".join(line.rstrip() for line in written.getvalue().rstrip().splitlines())


def as_panel(sheet: Sheet) -> RenderableType:
    """Lay a sheet out for a terminal."""
    return Panel(_body(sheet), title=Text(harmless(sheet.title), style="bold"), box=box.ROUNDED, expand=False)


def _body(sheet: Sheet) -> RenderableType:
    headline = _rich(sheet.headline)
    headline.stylize("bold")
    shown: list[RenderableType] = [headline]
    for part in sheet.parts:
        if part.title or part is not sheet.parts[0]:
            shown.append(Text())
        title = [Text(part.title, style="bold underline")] if part.title else []
        shown += [*title, _Columns(part) if part.header else _grid(part)]
    if sheet.more:
        shown += [Text(), Text(sheet.more, style="dim", overflow="fold")]
    return Group(*shown)


def _rich(cell: Cell) -> Text:
    # A `Text` holds no markup: what a question or a name says is never taken for a style.
    return Text(harmless(cell.text), style=_RICH_STYLES[cell.tone], overflow="fold")


def _grid(part: Part) -> Table:
    table = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2))
    for row in part.rows:
        table.add_row(*map(_rich, row))
    return table


@dataclass(frozen=True)
class _Columns:
    """A part with a header, which fits into whatever width it is shown in. Strictly private."""

    part: Part

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        rows = [list(map(_rich, row)) for row in self.part.rows]
        table, left_out = as_table(self.part.header, rows, options.max_width, self.part.giving)
        table.show_edge = False
        yield table
        if left_out:
            yield Text(f"Not shown for want of room: {', '.join(left_out)}.", style="dim")


def as_html(sheet: Sheet) -> str:
    """Write a sheet as HTML that needs nothing but itself: its picture first, then words and tables."""
    title = f'<div style="opacity:.75">{harmless_html(sheet.title)}</div>'
    headline = f'<div style="font-size:1.15em;font-weight:bold;margin:2px 0">{_html_text(sheet.headline)}</div>'
    parts = "".join(map(_html_part, sheet.parts))
    # Notebooks typeset what stands between two dollar signs, unless they are told not to.
    classes = "dspy-cachectl tex2jax_ignore mathjax_ignore"
    return f'<div class="{classes}" style="{_HTML_FRAME}">{_html_picture(sheet)}{title}{headline}{parts}</div>'


def _html_picture(sheet: Sheet) -> str:
    if sheet.picture is None:
        return ""
    return f'<div style="max-width:{WIDTH}px;margin-bottom:6px">{as_svg(sheet.picture)}</div>'


def _html_text(cell: Cell) -> str:
    colours = _HTML_COLOURS.get(cell.tone)
    if colours is None:
        return harmless_html(cell.text)
    style = f"{colours};padding:1px 8px;border-radius:4px;font-weight:bold;white-space:nowrap"
    return f'<span style="{style}">{harmless_html(cell.text)}</span>'


def _html_cell(cell: Cell) -> str:
    if cell.tone is Tone.LABEL:
        return f'<th scope="row" style="{_HTML_LABEL}">{harmless_html(cell.text)}</th>'
    return f'<td style="{_HTML_CELL}">{_html_text(cell)}</td>'


def _html_part(part: Part) -> str:
    title = harmless_html(part.title)
    header = "".join(f'<th style="{_HTML_HEADER}">{harmless_html(name)}</th>' for name in part.header)
    head = f"<thead><tr>{header}</tr></thead>" if header else ""
    rows = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in part.rows)
    body = f'<table style="{_HTML_TABLE}">{head}<tbody>{rows}</tbody></table>'
    if part.is_aside:
        return f'<details><summary style="{_HTML_TITLE};cursor:pointer">{title}</summary>{body}</details>'
    return f'<div style="{_HTML_TITLE}">{title}</div>{body}'


class Shown(ABC):
    """A value that shows itself: as text, in a terminal, and in a notebook. It says what, and leaves to others how."""

    @abstractmethod
    def _sheet(self) -> Sheet:
        """Return all that is shown of it."""

    @abstractmethod
    def _brief(self) -> Sheet:
        """Return what of it fits on a screen: the result, what is to be done, and what makes it doubtful."""

    def details(self) -> str:
        """Return all of it as text; `print()` shows what matters most, on one screen."""
        return as_text(self._sheet())

    def __str__(self) -> str:
        return as_text(self._brief())

    def __rich__(self) -> RenderableType:
        return as_panel(self._brief())

    def _repr_html_(self) -> str:
        return as_html(self._sheet())
