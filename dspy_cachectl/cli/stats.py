"""`dspy-cachectl stats`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from dspy_cachectl.cli.output import console, plain, print_json, print_table
from dspy_cachectl.stores.reader import FolderReader

if TYPE_CHECKING:
    from dspy_cachectl.manage.statistics import Line, StoreStatistics

_GROUP = ("kind", "phase", "role", "model")
_NUMBERS = ("entries", "calls", "served", "tokens spent", "tokens saved", "spent", "saved")
_BAR = 40


class By(str, Enum):
    """What to tell apart."""

    MODEL = "model"
    PHASE = "phase"
    ROLE = "role"
    RUN = "run"
    KIND = "kind"

    @property
    def field(self) -> str:
        """The field of a label."""
        return "run_id" if self is By.RUN else self.value


class WithOptionalFile(TyperCommand):
    """A command whose `--plot` may stand alone; the parser knows only options that always or never have a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a lone `--plot` an empty value."""
        given = [
            "--plot=" if arg == "--plot" and (at + 1 == len(args) or args[at + 1].startswith("-")) else arg
            for at, arg in enumerate(args)
        ]
        return super().parse_args(ctx, given)


def show_stats(
    context: typer.Context,
    *,
    by: Annotated[By | None, typer.Option("--by", help="Tell apart only by this.")] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            "--plot", metavar="[FILE]", help="Draw it as bars here, or as a figure in a file (PNG, SVG, PDF)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with everything told apart.")] = False,
) -> None:
    """Show how much is stored, how often it was served, and what that saved.

    Entries are counted in the phase that bought them, calls in the phase that they were made in.
    """
    from dspy_cachectl.manage.statistics import statistics

    found = statistics(FolderReader(context.obj.folder()))
    if plot:
        from dspy_cachectl.manage.figures import plot_statistics

        chosen = by or By.MODEL
        plot_statistics(found.by_field(chosen.field), Path(plot), by=chosen.value)
        if not as_json:
            print(f"Written to {plot}.")
            return
    if as_json:
        print_json(found.as_dict())
    elif _print_head(found):
        if plot is None:
            _print_table(found, by)
        else:
            chosen = by or By.MODEL
            _print_bars(found.by_field(chosen.field), chosen.value)


def _print_head(found: StoreStatistics) -> bool:
    from rich import filesize
    from rich.text import Text

    out, total = console(), found.total
    out.print(Text(plain(str(found.folder))), soft_wrap=True)
    if found.damaged:
        out.print(f"{found.damaged} of the entries that say how it was used cannot be read; they are not counted.")
    if not total.entries and not total.tally.calls:
        out.print("Nothing is stored yet.")
        return False
    out.print(f"{total.entries:,} {'entry' if total.entries == 1 else 'entries'}, {filesize.decimal(found.size)}")
    if total.tally.calls:
        tally = total.tally
        out.print(
            f"{tally.calls:,} {'call' if tally.calls == 1 else 'calls'}, {_share(total)} of them served; "
            f"{tally.tokens_saved:,} tokens and ${tally.cost_saved:.4g} saved, "
            f"{tally.tokens_spent:,} tokens and ${tally.cost_spent:.4g} spent",
            soft_wrap=True,
        )
    return True


def _print_table(found: StoreStatistics, by: By | None) -> None:
    if by is not None:
        lines = found.by_field(by.field)
        rows = [(name or "-", *_numbers(line)) for name, line in lines.items()]
        print_table((by.value, *_NUMBERS), rows, right=_NUMBERS)
        return
    groups = found.by(lambda label: tuple(str(getattr(label, name)) for name in _GROUP))
    print_table(
        (*_GROUP, "runs", *_NUMBERS),
        [
            (*(name or "-" for name in group), f"{len(line.runs):,}" if line.runs else "-", *_numbers(line))
            for group, line in groups.items()
        ],
        right=("runs", *_NUMBERS),
    )


def _numbers(line: Line) -> Sequence[str]:
    tally = line.tally
    return (
        f"{line.entries:,}",
        f"{tally.calls:,}" if tally.calls else "-",
        _share(line),
        f"{tally.tokens_spent:,}" if tally.calls else "-",
        f"{tally.tokens_saved:,}" if tally.calls else "-",
        f"${tally.cost_spent:.4g}" if tally.cost_spent else "-",
        f"${tally.cost_saved:.4g}" if tally.cost_saved else "-",
    )


def _share(line: Line) -> str:
    return "-" if line.hit_rate is None else f"{line.hit_rate:.0%}"


def _print_bars(lines: Mapping[str, Line], by: str) -> None:
    from rich.text import Text

    out = console()
    names = {name: plain(name) or "-" for name in lines}
    width = max(map(len, names.values()))
    most_calls = max((line.tally.calls for line in lines.values()), default=0)
    most_entries = max((line.entries for line in lines.values()), default=0)
    for title, most in (("entries", most_entries), ("calls: █ served, ░ not", most_calls)):
        out.print(f"\n{by}: {title}" if most else "")
        for name, line in lines.items() if most else ():
            if title == "entries":
                bars = [("█" * round(_BAR * line.entries / most), "blue"), (f" {line.entries:,}", "")]
            else:
                served = round(_BAR * line.tally.served / most)
                rest = round(_BAR * line.tally.calls / most) - served
                bars = [("█" * served, "green"), ("░" * rest, "red"), (f" {line.tally.calls:,}, {_share(line)}", "")]
            out.print(Text.assemble(f"{names[name]:<{width}} ", *bars), soft_wrap=True)
