"""`dspy-cachectl prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspy_cachectl.cli import options
from dspy_cachectl.cli.consent import DryRun, Yes, agreed, must_be_able_to_ask, progress
from dspy_cachectl.cli.removing import counted, print_result, show_plan
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.manage.selection import parse_size


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from error


def prune_entries(
    context: typer.Context,
    *,
    older_than: Annotated[
        float | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            parser=options.age,
            help="Remove what was stored longer ago: 90s, 15m, 24h, 7d, 2w.",
        ),
    ] = None,
    max_size: Annotated[
        int | None,
        typer.Option(
            "--max-size",
            metavar="SIZE",
            parser=_size,
            help="Remove the oldest until this much is left, such as 10GB. Default: the configured disk_bytes.",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            metavar="FOLDER",
            help="Prune this folder of kept predictions too, by its own rule: 30 days, 2 GiB.",
        ),
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Remove what is expired, and the oldest entries over the size limit.

    An answer that was bought in a phase with a max_age is expired when it is older than every max_age configured.
    """
    from dspy_cachectl.config import settings
    from dspy_cachectl.manage import pruning
    from dspy_cachectl.manage.snapshots import expired, prune_snapshots
    from dspy_cachectl.stores.disk import DiskStore
    from dspy_cachectl.stores.reader import FolderReader

    must_be_able_to_ask(yes=yes, dry_run=dry_run)
    folder: Path = context.obj.folder()
    limits = pruning.Limits.of(settings(), older_than=older_than, max_bytes=max_size)
    reader = FolderReader(folder)
    decided = pruning.plan_pruning(reader, limits)
    snapshots = [] if predictions is None else expired(predictions)
    if not as_json:
        show_plan(folder, decided)
        for info in snapshots:
            print(f"To be removed: the predictions {info.name}")
    removed, gone = 0, []
    if (decided.entries or snapshots) and not dry_run:
        files = f" and {counted(len(snapshots), 'file', 'files')} of predictions" if snapshots else ""
        if not agreed(f"Remove {counted(decided.entries, 'entry', 'entries')}{files}?", yes=yes):
            raise typer.Exit(1)
        if decided.entries:
            with progress("Removing") as advance:
                removed = pruning.prune(DiskStore(folder), reader, decided, limits, advance=advance)
        gone = [] if predictions is None else prune_snapshots(predictions)
        if not as_json:
            print(f"Removed {counted(removed, 'entry', 'entries')}.")
            if predictions is not None:
                print(f"Removed {counted(len(gone), 'file', 'files')} of predictions.")
    if as_json:
        names = [path.name for path in (gone if not dry_run else snapshots)]
        print_result(folder, decided, removed=removed, dry_run=dry_run, predictions=names)
