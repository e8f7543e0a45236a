"""`dspy-cachectl show` and `dspy-cachectl diff`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspy_cachectl.cli.options import AsJson
from dspy_cachectl.cli.output import age_text, console, plain_lines, print_json, styled
from dspy_cachectl.errors import StoreError
from dspy_cachectl.manage import entries
from dspy_cachectl.manage.entries import AmbiguousKeyError, ShortKeyError, Shown
from dspy_cachectl.stores.reader import FolderReader

if TYPE_CHECKING:
    from rich.text import Text

    from dspy_cachectl.entries.explain import Span

Key = Annotated[str, typer.Argument(metavar="KEY", help="The key of an entry, or how it begins.", show_default=False)]

_STYLES = {"both": "", "first": "red", "second": "green", "cut": "dim"}
_MARKS = {"both": "{}", "first": "[-{}-]", "second": "{{+{}+}}", "cut": " … ({}) … "}


def show_entry(context: typer.Context, key: Key, *, as_json: AsJson = False) -> None:
    """Show an entry: what was asked, what was answered, and where the answer came from."""
    shown = _found(FolderReader(context.obj.folder()), key)
    if as_json:
        print_json(shown.as_dict())
        return
    out = console()
    for name, value in _facts(shown):
        out.print(styled((f"{name:<12} ", "dim"), (value, "")), soft_wrap=True)
    for part in shown.messages:
        _print_part(out.print, part.title, part.text, "bold cyan")
    for part in shown.answer:
        _print_part(out.print, f"answer: {part.title}", part.text, "bold green")


def show_difference(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="KEY", help="The key of an entry, or how it begins.")],
    second: Annotated[str, typer.Argument(metavar="KEY", help="The key of another.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two entries. Words of the first are in [-...-], words of the second in {+...+}."""
    reader = FolderReader(context.obj.folder())
    one, other = _found(reader, first), _found(reader, second)
    found = entries.compare(one, other)
    if as_json:
        print_json({"first": one.row.key, "second": other.row.key, **found.as_dict()})
        return
    out = console()
    out.print(styled((f"first   {one.row.key}\n", "red"), (f"second  {other.row.key}", "green")), soft_wrap=True)
    for title, lines in (("request", found.request), ("origin", found.origin)):
        _print_part(out.print, title, "\n".join(lines) or "the same", "bold cyan")
    for title, spans in found.messages:
        _print_part(out.print, f"message {title}", _words(spans), "bold cyan")
    _print_part(out.print, "answer", "the same" if found.answer is None else _words(found.answer), "bold green")


def _found(reader: FolderReader, key: str) -> Shown:
    try:
        row, decoded = entries.find(reader, key)
    except (AmbiguousKeyError, ShortKeyError) as error:
        raise typer.BadParameter(plain_lines(str(error)), param_hint="KEY") from error
    try:
        return decoded()
    except StoreError as error:
        raise type(error)(f"the entry {row.key} cannot be shown: {error}") from error


def _facts(shown: Shown) -> Iterator[tuple[str, str]]:
    from rich import filesize

    row, origin, now = shown.row, shown.origin, time.time()
    yield "key", row.key
    yield "kind", origin.kind
    yield "model", origin.model
    yield "stored", f"{_when(row.stored)}, {age_text(now - row.stored)} ago; {filesize.decimal(row.size)}"
    last = "" if row.served_at is None else f", last {_when(row.served_at)}, {age_text(now - row.served_at)} ago"
    yield "served", f"{row.served:,} {'time' if row.served == 1 else 'times'}{last}"
    lent = " (lent by the phase)" if origin.lent else ""
    for name, value in (
        ("phase", origin.phase or "(outside phases)"),
        ("role", origin.role),
        ("run", origin.run_id),
        ("rollout id", origin.rollout_id),
        ("ordinal", origin.ordinal),
        ("endpoint", origin.endpoint),
        ("temperature", None if origin.temperature is None else f"{origin.temperature:g}{lent}"),
        ("tokens", _tokens(origin.prompt_tokens, origin.completion_tokens)),
        ("cost", None if origin.cost is None else f"${origin.cost:.6g}"),
        ("took", f"{origin.seconds:.2f} s, {origin.requests} {'request' if origin.requests == 1 else 'requests'}"),
        ("response", ", ".join(origin.response_ids) or None),
        ("truncated", "yes, at the token limit" if origin.truncated else None),
        *entries.options_of(shown),
    ):
        if value is not None:
            yield name, str(value)


def _tokens(read: int | None, written: int | None) -> str | None:
    if read is None and written is None:
        return None
    return f"{read or 0:,} read, {written or 0:,} written"


def _words(spans: list[Span]) -> Text:
    return styled(*((_MARKS[span.of].format(span.text), _STYLES[span.of]) for span in spans))


def _print_part(write: Any, title: str, text: str | Text, style: str) -> None:
    write()
    write(styled((title, style)), soft_wrap=True)
    write(styled((text, "")) if isinstance(text, str) else text, soft_wrap=True)


def _when(stored: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stored))
