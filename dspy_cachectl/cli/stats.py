"""`dspy-cachectl stats`."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from dspy_cachectl.cli.output import console, plain, print_json
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.reader import FolderReader

_FIELDS = ("kind", "model", "phase", "role", "run_id")
_GROUP = ("kind", "phase", "role", "model")


def show_stats(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every run by itself.")] = False,
) -> None:
    """Show how much is stored, by kind, phase, role, model and run."""
    folder: Path = context.obj.folder()
    reader = FolderReader(folder)
    labels = reader.labels()
    size = reader.bytes_used()
    if as_json:
        print_json(_as_data(folder, labels, size))
    else:
        _print_table(folder, labels, size)


def _as_data(folder: Path, labels: Mapping[Label, int], size: int) -> dict[str, Any]:
    by: dict[str, Counter[str]] = {field: Counter() for field in _FIELDS}
    rows: list[dict[str, Any]] = []
    for label, entries in sorted(labels.items(), key=lambda item: item[0].encode()):
        row = {field: getattr(label, field) for field in _FIELDS}
        rows.append({**row, "entries": entries})
        for field, value in row.items():
            by[field][value] += entries
    return {
        "store": str(folder),
        "exists": folder.is_dir(),
        "entries": sum(labels.values()),
        "bytes": size,
        "by": {field: dict(counts.most_common()) for field, counts in by.items()},
        "labels": rows,
    }


def _print_table(folder: Path, labels: Mapping[Label, int], size: int) -> None:
    from rich import box, filesize
    from rich.table import Table
    from rich.text import Text

    entries: Counter[tuple[str, ...]] = Counter()
    runs: dict[tuple[str, ...], set[str]] = {}
    for label, count in labels.items():
        group = tuple(getattr(label, field) for field in _GROUP)
        entries[group] += count
        runs.setdefault(group, set()).update({label.run_id} - {""})

    out = console()
    out.print(Text(plain(str(folder))), soft_wrap=True)
    if not entries:
        out.print("Nothing is stored yet.")
        return
    total = sum(entries.values())
    out.print(f"{total:,} {'entry' if total == 1 else 'entries'}, {filesize.decimal(size)}")
    table = Table(*_GROUP, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("runs", justify="right")
    table.add_column("entries", justify="right")
    for group, count in sorted(entries.items(), key=lambda item: (-item[1], item[0])):
        names = (Text(plain(part) or "-", overflow="fold") for part in group)
        table.add_row(*names, f"{len(runs[group]):,}" if runs[group] else "-", f"{count:,}")
    out.print(table)
