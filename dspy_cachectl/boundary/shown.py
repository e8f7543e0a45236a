"""Texts of others made harmless for whoever shows them: a terminal, a browser, a log, a shell, a spreadsheet."""

from __future__ import annotations

import logging
import re
import traceback

from dspy_cachectl.boundary.secrets import scrub
from dspy_cachectl.escapes import harmless, harmless_lines

__all__ = [
    "harmless",
    "harmless_cell",
    "harmless_html",
    "harmless_lines",
    "harmless_trace",
    "is_harmless_for_shells",
    "logger_for",
    "shortened",
    "stands_for",
    "writable_number",
]

_SHELL = re.compile(r"[\w/@][\w./:@+,=%-]*")
_FORMULA = re.compile(r"[\s\x00-\x1f]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
_MOST_BITS = 12_000
_LEFT_OUT = "…"


def is_harmless_for_shells(text: str) -> bool:
    """Tell whether a text may be put on a command line: no shell takes anything in it for more than a letter."""
    return _SHELL.fullmatch(text) is not None


def harmless_cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: an apostrophe stands before it, which is not shown.

    NUL is written as its escape: it ends the text for some readers, and others refuse the file.
    """
    text = text.replace("\0", "\\x00")
    return f"'{text}" if _FORMULA.match(text) else text


def harmless_html(text: str) -> str:
    """Return a text as HTML, also for an attribute in double quotes: nothing in it is a tag, an entity or a control."""
    import html  # knows every character by its name, which takes long to load

    return html.escape(harmless(text))


def shortened(name: str, width: int) -> str:
    """Return a name in so many columns of a terminal. Of one that is too long the middle is left out: `openai/…-mini`.

    What a command shows so, it takes so (see `stands_for`).
    """
    from rich.cells import cell_len

    if cell_len(name) <= width:
        return name
    room = max(width - 1, 2)
    return f"{_within(name, (room + 1) // 2)}{_LEFT_OUT}{_within(name[::-1], room // 2)[::-1]}"


def _within(text: str, room: int) -> str:
    from rich.cells import cell_len

    taken = ""
    for character in text:
        if cell_len(taken + character) > room:
            break
        taken += character
    return taken


def stands_for(written: str, name: str) -> bool:
    """Tell whether a name is what was shown shortened, and is now written in the same way."""
    head, mark, tail = written.partition(_LEFT_OUT)
    is_longer = len(name) > len(head) + len(tail)
    return bool(mark) and is_longer and name.startswith(head) and name.endswith(tail)


def writable_number(value: int) -> int | str:
    """Return a number, or its hexadecimal digits where it has thousands: Python refuses to write those in decimal."""
    return value if value.bit_length() < _MOST_BITS else hex(value)


def harmless_trace(error: BaseException) -> str:
    """Return an error and where it came from, as Python shows them, without what a terminal would obey."""
    return harmless_lines("".join(traceback.format_exception(error))).rstrip("\n")


def logger_for(name: str) -> logging.Logger:
    """Return the logger of a module. What it logs, traces included, is harmless and has no secret in it."""
    logger = logging.getLogger(name)  # noqa: TID251 - here they are made
    logger.addFilter(_make_harmless)
    return logger


def _make_harmless(record: logging.LogRecord) -> bool:
    try:
        message = record.getMessage()
    except Exception as error:  # noqa: BLE001 - an error whose text cannot be made fails no call that logs it
        message = f"{record.msg} (and what it is about cannot be written: {type(error).__name__})"
    record.msg, record.args = harmless_lines(scrub(message)), ()
    if record.exc_info and record.exc_info[1] is not None:
        # Formatters take it as it is.
        record.exc_text = scrub(harmless_trace(record.exc_info[1]))
    return True
