"""`dspy-cachectl ls`, `show`, `diff`, `explain` and `stats`: which entries there are, and what is in them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from dspy_cachectl import manage
from dspy_cachectl.boundary.reading import read_json
from dspy_cachectl.boundary.shown import harmless, shortened
from dspy_cachectl.cli.options import AsJson, count_in, one_of, selecting, tell_unread, told_unknown
from dspy_cachectl.cli.output import (
    console,
    print_fact,
    print_json,
    print_json_lines,
    print_line,
    print_part,
    print_table,
    styled,
)
from dspy_cachectl.entries.token_counts import PARTS, in_words, parts
from dspy_cachectl.errors import ConfigurationError, StoreError
from dspy_cachectl.manage.selection import Selection
from dspy_cachectl.reports.progress_bar import progress
from dspy_cachectl.reports.texts import age, plural, size, when
from dspy_cachectl.stores.rows import Order

if TYPE_CHECKING:
    from rich.text import Text

    from dspy_cachectl.entries.differences import Span

Key = Annotated[str, typer.Argument(metavar="KEY", help="The key of an entry, or how it begins.", show_default=False)]

_MUCH_GONE = 0.02
"""From which share on a number of entries is only about right."""
_BY = ("model", "phase", "role", "run", "kind")

_GROUP = ("kind", "phase", "role", "model")
_NUMBERS = ("entries", "calls", "served", "tokens spent", "tokens saved", "spent", "saved")
_BAR = 40
_LEAST_BAR, _LEAST_NAME = 8, 12
_COLUMNS = ("key", "age", "kind", "model", "phase", "role", "run", "size", "served", "prompt")
_KEY_SHOWN = 12
_STYLES = {"both": "", "first": "red", "second": "green", "cut": "dim"}
_MARKS = {"both": "{}", "first": "[-{}-]", "second": "{{+{}+}}", "cut": " … ({}) … "}


@selecting
def list_store(
    context: typer.Context,
    *,
    selection: Selection,
    sort: Annotated[
        str,
        typer.Option(
            "--sort", help="What to sort by; the newest, largest, most served first.", **one_of(*get_args(Order))
        ),
    ] = "age",
    reverse: Annotated[bool, typer.Option("--reverse", help="The other way round.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", parser=count_in, help="How many at most; 0 for all.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """List entries, the newest first, with the beginning of what was asked."""
    reader = context.obj.reader()
    now, nothing, unread = time.time(), told_unknown(reader, selection), Counter[str]()
    with progress("Searching") if selection.text is not None else nullcontext() as advance:
        # One more than is shown tells whether there are more.
        most = limit + (not as_json) if limit else None
        found = manage.entries.list_entries(
            reader,
            selection,
            now=now,
            order=cast("Order", sort),
            reverse=reverse,
            limit=most,
            unread=unread,
            advance=advance,
        )
        if as_json:
            print_json_lines(found)
            tell_unread(unread)
            return
        rows = [_cells(entry, now) for entry in found]
        print_table(
            _COLUMNS,
            rows[: limit or None],
            right=("age", "size", "served"),
            whole=("key", "run"),
            names=("model", "phase", "role"),
            cut="prompt",
            spare=("kind", "served", "run", "role", "size", "phase"),
            nothing=nothing,
        )
        if limit and len(rows) > limit:
            print_line(f"More are stored than these {limit:,}: --limit 0 lists all of them.")
    tell_unread(unread)


def _cells(entry: manage.entries.ListedEntry, now: float) -> tuple[str, ...]:
    label = entry.label
    return (
        entry.key[:_KEY_SHOWN],
        age(now - entry.stored),
        *(label.kind, label.model, label.phase, label.role, label.run),
        size(entry.size),
        f"{entry.served:,}",
        entry.prompt if entry.prompt is not None else f"({entry.newer or f'damaged: {entry.damage}'})",
    )


def show_entry(context: typer.Context, key: Key, *, as_json: AsJson = False) -> None:
    """Show an entry: what was asked, what was answered, and where the answer came from."""
    shown = manage.entries.find(context.obj.reader(), key)
    if as_json:
        print_json(shown)
        return
    for name, value in _facts(shown).items():
        if value is not None:
            print_fact(name, value)
    for part in shown.messages:
        print_part(part.title, part.text, "bold cyan")
    for part in shown.answer:
        print_part(f"answer: {part.title}", part.text, "bold green")


def show_difference(
    context: typer.Context,
    first: Key,
    second: Annotated[str, typer.Argument(metavar="KEY", help="The key of another.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two entries. Words of the first are in [-...-], words of the second in {+...+}."""
    reader = context.obj.reader()
    found = manage.entries.compare(*(manage.entries.find(reader, key) for key in (first, second)))
    if as_json:
        print_json(found)
        return
    console().print(styled((f"first   {found.first}\n", "red"), (f"second  {found.second}", "green")), soft_wrap=True)
    for title, lines in (("request", found.request), ("origin", found.origin)):
        print_part(title, "\n".join(lines) or "the same", "bold cyan")
    for title, spans in found.messages.items():
        print_part(f"message {title}", _words(spans), "bold cyan")
    print_part("answer", "the same" if found.answer is None else _words(found.answer), "bold green")


def explain_miss(
    context: typer.Context,
    *,
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="The key of an entry, or how it begins.", show_default=False)
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option("--request", metavar="FILE", help="A request as JSON; '-' reads it from the standard input."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say why a request was bought, though others are stored: the nearest one, and what differs.

    With a KEY: why that entry was bought, in the light of what was stored before it. With --request: whether the
    answer is stored, and what is nearest to it where it is not. A request is {"model": ..., "messages": [...]} with
    the options of the call, or what `show --json` prints under "request".
    """
    if (key is None) == (request is None):
        raise typer.BadParameter("name the KEY of an entry, or a --request", param_hint="KEY")

    reader = context.obj.reader()
    with progress("Searching") as advance:
        if request is not None:
            found = manage.explanation.explain_request(reader, _read(request), advance=advance)
        else:
            found = manage.explanation.explain_entry(reader, key or "", advance=advance)
    if as_json:
        print_json(found)
        return
    print_line(f"key: {found.key}")
    print_line(f"{'stored' if found.stored else 'not stored'}: {found.reason}")
    if found.nearest is not None:
        print_line(f"nearest of {plural(found.searched, 'entry', 'entries')}: {found.nearest}")
        for line in found.differences or ["nothing differs"]:
            print_line(f"  - {line}")


def _read(path: Path) -> dict[str, Any]:
    try:
        data = read_json(path, what="the request")
    except StoreError as error:
        raise ConfigurationError(str(error)) from error
    if not isinstance(data, dict):
        raise ConfigurationError(f"{str(path)!r} holds no JSON object")
    return data


def _facts(shown: manage.entries.ShownEntry) -> dict[str, str | None]:
    from dspy_cachectl.reports import entry_text

    origin, now = shown.origin, time.time()
    last = "" if shown.served_at is None else f", last {_ago(shown.served_at, now)}"
    lent = " (lent by the phase)" if origin.lent else ""
    read, written = origin.prompt_tokens, origin.completion_tokens
    of_read, of_written = parts(origin.cached_tokens or 0, origin.cache_creation_tokens or 0), origin.reasoning_tokens
    read_text = f"{read or 0:,} read{f' ({of_read})' if of_read else ''}"
    written_text = f"{written or 0:,} written{f' ({of_written:,} reasoning)' if of_written else ''}"
    tokens = None if read is None and written is None else f"{read_text}, {written_text}"
    options = entry_text.options(shown.request).items()
    return {
        "key": shown.key,
        "kind": origin.kind,
        "model": origin.model,
        "answered by": " + ".join(origin.answered_by) or None,
        "stored": f"{_ago(shown.stored, now)}; {size(shown.size)}",
        "served": f"{plural(shown.served, 'time')}{last}",
        "phase": origin.phase or "(outside phases)",
        "role": origin.role,
        "run": origin.run_id,
        "rollout id": None if origin.rollout_id is None else str(origin.rollout_id),
        "ordinal": None if origin.ordinal is None else str(origin.ordinal),
        "endpoint": origin.endpoint,
        "temperature": None if origin.temperature is None else f"{origin.temperature:g}{lent}",
        "tokens": tokens,
        "cost": None if origin.cost is None else f"${origin.cost:.6g}",
        "took": f"{origin.seconds:.2f} s, {plural(origin.requests, 'request')}",
        "response": ", ".join(origin.response_ids) or None,
        "truncated": "yes, at the token limit" if origin.truncated else None,
        **{name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for name, value in options},
    }


def _ago(moment: float, now: float) -> str:
    return f"{when(moment)}, {age(now - moment)} ago"


def _words(spans: list[Span]) -> Text:
    return styled(*((_MARKS[span.of].format(span.text), _STYLES[span.of]) for span in spans))


def show_stats(
    context: typer.Context,
    *,
    by: Annotated[str | None, typer.Option("--by", help="Tell apart only by this.", **one_of(*_BY))] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw it as bars.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with everything told apart.")] = False,
) -> None:
    """Show how much is stored, how often it was served, and what that saved.

    Entries are counted in the phase that bought them, calls in the phase that they were made in.
    """
    found = manage.store_usage.store_usage(context.obj.reader())
    if as_json:
        print_json(found)
    elif _print_head(found):
        if plot:
            field = by or "model"
            _print_bars(found.by[field], field)
        else:
            _print_table(found, by)


def _print_head(found: manage.store_usage.StoreUsage) -> bool:
    total, tally = found.total, found.total.tally
    print_line(found.store)
    if not total.entries and not tally.calls:
        print_line("Nothing is stored yet.")
        return False
    about = "about " if found.gone > _MUCH_GONE else ""
    print_line(f"{about}{plural(total.entries, 'entry', 'entries')}; the store takes up {size(found.bytes)}")
    if about:
        print_line(f"About {found.gone:.0%} of these were removed to make room: `dspy-cachectl verify` counts anew.")
    if tally.calls:
        print_line(
            f"{plural(tally.calls, 'call')}, {_share(total)} of them served; "
            f"{tally.tokens_saved:,} tokens and ${tally.cost_saved:.4g} saved, "
            f"{tally.tokens_spent:,} tokens and ${tally.cost_spent:.4g} spent"
        )
        if tally.unpriced:
            print_line(f"{plural(tally.unpriced, 'request')} without a known price")
        for what in ("saved", "spent"):
            if any(getattr(tally, f"{name}_{what}") for name in PARTS):
                print_line(f"{what}: {in_words(vars(tally), f'_{what}')}")
    return True


def _print_table(found: manage.store_usage.StoreUsage, by: str | None) -> None:
    if by is not None:
        rows = [(name, *_numbers(usage)) for name, usage in found.by[by].items()]
        print_table((by, *_NUMBERS), rows, right=_NUMBERS, names=(by,))
        return
    groups = manage.store_usage.sums(found.labels, lambda label: tuple(str(getattr(label, name)) for name in _GROUP))
    print_table(
        (*_GROUP, "runs", *_NUMBERS),
        [(*group, f"{len(usage.runs):,}" if usage.runs else "", *_numbers(usage)) for group, usage in groups.items()],
        right=("runs", *_NUMBERS),
        names=_GROUP,
        spare=("kind", "role", "runs", "phase"),
    )


def _numbers(usage: manage.store_usage.Usage) -> Sequence[str]:
    tally = usage.tally
    return (
        f"{usage.entries:,}",
        f"{tally.calls:,}" if tally.calls else "",
        _share(usage),
        f"{tally.tokens_spent:,}" if tally.calls else "",
        f"{tally.tokens_saved:,}" if tally.calls else "",
        f"${tally.cost_spent:.4g}" if tally.cost_spent else "",
        f"${tally.cost_saved:.4g}" if tally.cost_saved else "",
    )


def _share(usage: manage.store_usage.Usage) -> str:
    return "-" if usage.hit_rate is None else f"{usage.hit_rate:.0%}"


def _print_bars(usages: Mapping[str, manage.store_usage.Usage], by: str) -> None:
    from rich.cells import cell_len
    from rich.text import Text

    out = console()
    counts = max(len(f" {usage.tally.calls:,}, 100%") for usage in usages.values())
    bar = min(_BAR, max(_LEAST_BAR, out.width - _LEAST_NAME - counts - 1))
    width = min(max(cell_len(harmless(name)) for name in usages), max(out.width - bar - counts - 1, _LEAST_NAME))
    most_entries = max(usage.entries for usage in usages.values())
    most_calls = max(usage.tally.calls for usage in usages.values())
    for title, most in (("entries", most_entries), ("calls: █ served, ░ not", most_calls)):
        out.print(f"\n{by}: {title}" if most else "")
        for name, usage in usages.items() if most else ():
            if title == "entries":
                bars = [("█" * round(bar * usage.entries / most), "blue"), (f" {usage.entries:,}", "")]
            else:
                tally = usage.tally
                served = round(bar * tally.served / most)
                rest = round(bar * tally.calls / most) - served
                bars = [("█" * served, "green"), ("░" * rest, "red"), (f" {tally.calls:,}, {_share(usage)}", "")]
            shown = shortened(harmless(name) or "-", width)
            out.print(Text.assemble(shown, " " * (width - cell_len(shown) + 1), *bars), soft_wrap=True)
