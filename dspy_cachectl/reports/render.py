"""Sheets for people: as text, as a panel in a terminal, and as HTML in a notebook.

What is on a sheet is decided by whoever made it; here is only how it looks.
"""

from __future__ import annotations

import html
import io

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dspy_cachectl.reports.sheets import Cell, Facts, Grid, Notes, Sheet, Tone
from dspy_cachectl.reports.texts import harmless

_TEXT_WIDTH = 110
_RICH_STYLES = {
    Tone.PLAIN: "bold",
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
    console.print(Group(_plain(sheet.title), _body(sheet)))
    return "\n".join(line.rstrip() for line in written.getvalue().rstrip().splitlines())


def as_panel(sheet: Sheet) -> RenderableType:
    """Lay a sheet out for a terminal."""
    return Panel(_body(sheet), title=Text(harmless(sheet.title), style="bold"), box=box.ROUNDED, expand=False)


def _body(sheet: Sheet) -> RenderableType:
    # Texts are `Text`, which holds no markup: what a question or a name says is never taken for a style.
    shown: list[RenderableType] = [_rich(sheet.headline)]
    for part in sheet.parts:
        shown += [Text(), Text(part.title, style="bold underline"), _rich_part(part)]
    return Group(*shown)


def _rich(cell: Cell) -> Text:
    return Text(harmless(cell.text), style=_RICH_STYLES[cell.tone], overflow="fold")


def _plain(text: str, style: str = "") -> Text:
    return Text(harmless(text), style=style, overflow="fold")


def _rich_part(part: Facts | Grid | Notes) -> RenderableType:
    if isinstance(part, Grid):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in part.header:
            table.add_column(Text(name), overflow="fold")
        for row in part.rows:
            table.add_row(*(_plain(cell.text) if cell.tone is Tone.PLAIN else _rich(cell) for cell in row))
        return table
    rows = Table.grid(padding=(0, 2))
    rows.add_column(no_wrap=True)
    rows.add_column(overflow="fold")
    if isinstance(part, Notes):
        for line in part.lines:
            rows.add_row(Text("-"), _plain(line))
    else:
        for label, value in part.rows:
            rows.add_row(_plain(label, "dim"), _plain(value))
    return rows


def as_html(sheet: Sheet) -> str:
    """Write a sheet as HTML that needs nothing but itself."""
    title = f'<div style="opacity:.75">{_escaped(sheet.title)}</div>'
    headline = f'<div style="font-size:1.15em;font-weight:bold;margin:2px 0">{_html_cell(sheet.headline)}</div>'
    parts = "".join(map(_html_part, sheet.parts))
    # Notebooks typeset what stands between two dollar signs, unless they are told not to.
    classes = "dspy-cachectl tex2jax_ignore mathjax_ignore"
    return f'<div class="{classes}" style="{_HTML_FRAME}">{title}{headline}{parts}</div>'


def _escaped(text: str) -> str:
    return html.escape(harmless(text))


def _html_cell(cell: Cell) -> str:
    if cell.tone is Tone.PLAIN:
        return _escaped(cell.text)
    style = f"{_HTML_COLOURS[cell.tone]};padding:1px 8px;border-radius:4px;font-weight:bold;white-space:nowrap"
    return f'<span style="{style}">{_escaped(cell.text)}</span>'


def _html_part(part: Facts | Grid | Notes) -> str:
    title = _escaped(part.title)
    if isinstance(part, Notes):
        lines = "".join(f"<li>{_escaped(line)}</li>" for line in part.lines)
        body = f'<ul style="margin:2px 0 0;padding-left:1.3em">{lines}</ul>'
    elif isinstance(part, Grid):
        header = "".join(f'<th style="{_HTML_HEADER}">{_escaped(name)}</th>' for name in part.header)
        rows = "".join(
            "<tr>" + "".join(f'<td style="{_HTML_CELL}">{_html_cell(cell)}</td>' for cell in row) + "</tr>"
            for row in part.rows
        )
        body = f'<table style="{_HTML_TABLE}"><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>'
    else:
        rows = "".join(
            f'<tr><th scope="row" style="{_HTML_LABEL}">{_escaped(label)}</th>'
            f'<td style="{_HTML_CELL}">{_escaped(value)}</td></tr>'
            for label, value in part.rows
        )
        body = f'<table style="{_HTML_TABLE}"><tbody>{rows}</tbody></table>'
    if isinstance(part, Facts) and part.is_aside:
        return f'<details><summary style="{_HTML_TITLE};cursor:pointer">{title}</summary>{body}</details>'
    return f'<div style="{_HTML_TITLE}">{title}</div>{body}'
