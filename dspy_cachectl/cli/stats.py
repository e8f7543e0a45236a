"""`dspy-cachectl stats`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated

import typer

from dspy_cachectl import manage
from dspy_cachectl.cli.output import console, print_json, print_line, print_table
from dspy_cachectl.reports.texts import harmless, plural, size
from dspy_cachectl.stores.reader import FolderReader

_GROUP = ("kind", "phase", "role", "model")
_NUMBERS = ("entries", "calls", "served", "tokens spent", "tokens saved", "spent", "saved")
_BAR = 40


class By(str, Enum):
    """What to tell apart: a field of a label."""

    MODEL = "model"
    PHASE = "phase"
    ROLE = "role"
    RUN = "run"
    KIND = "kind"


def show_stats(
    context: typer.Context,
    *,
    by: Annotated[By | None, typer.Option("--by", help="Tell apart only by this.")] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw it as bars.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with everything told apart.")] = False,
) -> None:
    """Show how much is stored, how often it was served, and what that saved.

    Entries are counted in the phase that bought them, calls in the phase that they were made in.
    """
    found = manage.store_usage.store_usage(FolderReader(context.obj.folder()))
    if as_json:
        print_json(found)
    elif _print_head(found):
        if plot:
            field = (by or By.MODEL).value
            _print_bars(found.by[field], field)
        else:
            _print_table(found, by)


def _print_head(found: manage.store_usage.StoreUsage) -> bool:
    total, tally = found.total, found.total.tally
    print_line(str(found.store))
    if not total.entries and not tally.calls:
        print("Nothing is stored yet.")
        return False
    print(f"{plural(total.entries, 'entry', 'entries')}, {size(found.bytes)}")
    if tally.calls:
        print(
            f"{plural(tally.calls, 'call')}, {_share(total)} of them served; "
            f"{tally.tokens_saved:,} tokens and ${tally.cost_saved:.4g} saved, "
            f"{tally.tokens_spent:,} tokens and ${tally.cost_spent:.4g} spent"
        )
    return True


def _print_table(found: manage.store_usage.StoreUsage, by: By | None) -> None:
    if by is not None:
        rows = [(name, *_numbers(usage)) for name, usage in found.by[by.value].items()]
        print_table((by.value, *_NUMBERS), rows, right=_NUMBERS)
        return
    groups = manage.store_usage.sums(found.labels, lambda label: tuple(str(getattr(label, name)) for name in _GROUP))
    print_table(
        (*_GROUP, "runs", *_NUMBERS),
        [(*group, f"{len(usage.runs):,}" if usage.runs else "", *_numbers(usage)) for group, usage in groups.items()],
        right=("runs", *_NUMBERS),
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
    from rich.text import Text

    out = console()
    width = max(len(harmless(name)) for name in usages)
    most_entries = max(usage.entries for usage in usages.values())
    most_calls = max(usage.tally.calls for usage in usages.values())
    for title, most in (("entries", most_entries), ("calls: █ served, ░ not", most_calls)):
        out.print(f"\n{by}: {title}" if most else "")
        for name, usage in usages.items() if most else ():
            if title == "entries":
                bars = [("█" * round(_BAR * usage.entries / most), "blue"), (f" {usage.entries:,}", "")]
            else:
                tally = usage.tally
                served = round(_BAR * tally.served / most)
                rest = round(_BAR * tally.calls / most) - served
                bars = [("█" * served, "green"), ("░" * rest, "red"), (f" {tally.calls:,}, {_share(usage)}", "")]
            out.print(Text.assemble(f"{harmless(name) or '-':<{width}} ", *bars), soft_wrap=True)
