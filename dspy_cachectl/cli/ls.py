"""`dspy-cachectl ls`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from dspy_cachectl.cli import options
from dspy_cachectl.cli.consent import progress
from dspy_cachectl.cli.output import age_text, console, plain, print_json_lines, print_table
from dspy_cachectl.manage import listing
from dspy_cachectl.stores.listing import Order
from dspy_cachectl.stores.reader import FolderReader

if TYPE_CHECKING:
    from dspy_cachectl.manage.listing import Listed
    from dspy_cachectl.manage.selection import Selection

_COLUMNS = ("key", "age", "kind", "model", "phase", "role", "run", "size", "served", "prompt")
_KEY_SHOWN = 12
_BLOCKS = " ▁▂▃▄▅▆▇█"
_SPANS = 48
_YOUNGEST = 60.0


def list_store(
    context: typer.Context,
    *,
    models: options.Models = None,
    phases: options.Phases = None,
    runs: options.Runs = None,
    roles: options.Roles = None,
    kinds: options.Kinds = None,
    older_than: options.OlderThan = None,
    newer_than: options.NewerThan = None,
    contains: options.Contains = None,
    sort: Annotated[Order, typer.Option("--sort", help="What to sort by; the newest, largest, most served first.")] = (
        Order.AGE
    ),
    reverse: Annotated[bool, typer.Option("--reverse", help="The other way round.")] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=0, help="How many at most; 0 for all.")] = 20,
    plot: Annotated[bool, typer.Option("--plot", help="Draw how many there are by model and age.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """List entries, the newest first, with the beginning of what was asked."""
    selection = options.selected(
        models=models,
        phases=phases,
        runs=runs,
        roles=roles,
        kinds=kinds,
        older_than=older_than,
        newer_than=newer_than,
        contains=contains,
    )
    if plot and (as_json or contains is not None):
        raise typer.BadParameter("a plot counts what is filed: leave out --json and --contains", param_hint="--plot")
    reader = FolderReader(context.obj.folder())
    now = time.time()
    if plot:
        _print_heat(reader, selection, now)
        return
    with progress("Searching") if contains is not None else nullcontext() as advance:
        found = listing.list_entries(
            reader,
            selection,
            now=now,
            order=sort,
            reverse=reverse,
            limit=limit or None,
            on_search=advance,
        )
        if as_json:
            print_json_lines(listed.as_dict() for listed in found)
            return
        first = next(found, None)
        if first is not None:
            print_table(
                _COLUMNS, _cells(first, found, now), right=("age", "size", "served"), whole=("key",), cut="prompt"
            )
    if first is None:
        console().print("Nothing is stored yet." if selection.is_empty else "Nothing that is stored fits.")


def _cells(first: Listed, rest: Iterator[Listed], now: float) -> Iterator[tuple[str, ...]]:
    from itertools import chain

    from rich import filesize

    for listed in chain([first], rest):
        row, label = listed.row, listed.row.label
        names = (label.kind, label.model, label.phase, label.role, label.run_id)
        yield (
            row.key[:_KEY_SHOWN],
            age_text(now - row.stored),
            *(name or "-" for name in names),
            filesize.decimal(row.size),
            f"{row.served:,}",
            listed.prompt if listed.prompt is not None else f"(damaged: {listed.damage})",
        )


def _print_heat(reader: FolderReader, selection: Selection, now: float) -> None:
    from rich.text import Text

    out = console()
    oldest = listing.oldest(reader, selection, now=now)
    if oldest is None:
        out.print("Nothing that is stored fits.")
        return
    # Each span is longer than the next by the same factor: the last hour takes as much room as the last months.
    longest = max(now - oldest, 3600.0) * 1.001
    factor = (longest / _YOUNGEST) ** (1 / (_SPANS - 1))
    edges = tuple(longest / factor**step for step in range(1, _SPANS))
    heat = listing.heat(reader, selection, now=now, edges=edges)
    width = max(len(plain(model) or "-") for model in heat.counts)
    most = max(max(counts) for counts in heat.counts.values())
    for model, counts in heat.counts.items():
        line = Text(f"{plain(model) or '-':<{width}} ")
        for count in counts:
            # Of one entry and of a hundred thousand both can be seen.
            share = math.log1p(count) / math.log1p(most)
            line.append(_BLOCKS[math.ceil(share * (len(_BLOCKS) - 1))], style="red" if share > 2 / 3 else "yellow")
        line.append(f" {sum(counts):,}")
        out.print(line, soft_wrap=True)
    left, right = f"{age_text(longest)} ago", "now"
    out.print(Text(f"{'':<{width}} {left}{right:>{_SPANS - len(left)}}"), soft_wrap=True)
