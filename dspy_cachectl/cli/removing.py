"""What `clear` and `prune` print: what would go, and what went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dspy_cachectl.cli.output import console, plain, print_json, print_table
from dspy_cachectl.manage.removal import BY, Plan

_SHOWN = 20


def counted(count: int, one: str, several: str) -> str:
    """Return a number with its noun."""
    return f"{count:,} {one if count == 1 else several}"


def show_plan(folder: Path, decided: Plan) -> None:
    """Print what would go, for people."""
    from rich import filesize
    from rich.text import Text

    out = console()
    out.print(Text(plain(str(folder))), soft_wrap=True)
    if not decided.entries:
        out.print("Nothing is to be removed.")
        return
    out.print(f"To be removed: {counted(decided.entries, 'entry', 'entries')}, {filesize.decimal(decided.bytes)},")
    out.print(f"stored between {_when(decided.oldest)} and {_when(decided.newest)}.")
    for reason, count in decided.reasons.most_common():
        out.print(f"  {count:,} {reason}")
    print_table(("by", "name", "entries", "size"), _groups(decided), right={"entries", "size"})


def _groups(decided: Plan) -> Iterator[tuple[str, ...]]:
    from rich import filesize

    for name in BY:
        found = sorted(decided.by[name].items(), key=lambda item: (-item[1][0], item[0]))
        for value, (count, size) in found[:_SHOWN]:
            yield name, value or "-", f"{count:,}", filesize.decimal(size)
        if len(found) > _SHOWN:
            count, size = (sum(column) for column in zip(*(item[1] for item in found[_SHOWN:]), strict=True))
            yield name, f"and {len(found) - _SHOWN:,} more", f"{count:,}", filesize.decimal(size)


def print_result(folder: Path, decided: Plan, *, removed: int, dry_run: bool, **more: Any) -> None:
    """Print what was planned and what became of it, as JSON."""
    print_json({"store": str(folder), **decided.as_data(), "removed": removed, "dry_run": dry_run, **more})


def _when(stored: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(stored or 0))
