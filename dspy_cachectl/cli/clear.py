"""`dspy-cachectl clear`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspy_cachectl.cli import options
from dspy_cachectl.cli.consent import DryRun, Yes, agreed, must_be_able_to_ask, progress
from dspy_cachectl.cli.removing import counted, print_result, show_plan
from dspy_cachectl.manage.selection import Selection


def clear_entries(
    context: typer.Context,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Everything in the store.")] = False,
    models: options.Models = None,
    phases: options.Phases = None,
    runs: options.Runs = None,
    roles: options.Roles = None,
    kinds: options.Kinds = None,
    older_than: options.OlderThan = None,
    newer_than: options.NewerThan = None,
    contains: options.Contains = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Remove entries: those that fit all selectors, or --all of them.

    Programs that use the store go on: they find an entry, or none. What they store meanwhile stays.
    """
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
    if selection.is_empty and not everything:
        raise typer.BadParameter("say what to remove, for example --run or --older-than, or --all", param_hint="--all")
    if everything and not selection.is_empty:
        raise typer.BadParameter("--all is everything; leave it out to select", param_hint="--all")
    if everything:
        selection = options.selected(kinds=["*"])
    clear(context.obj.folder(), selection, yes=yes, dry_run=dry_run, as_json=as_json)


def clear(folder: Path, selection: Selection, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Show what a selection takes with it, ask, and remove it."""
    from dspy_cachectl.manage import removal
    from dspy_cachectl.stores.disk import DiskStore
    from dspy_cachectl.stores.reader import FolderReader

    must_be_able_to_ask(yes=yes, dry_run=dry_run)
    with progress("Looking") as advance:
        decided = removal.plan(FolderReader(folder), selection, advance=advance)
    if not as_json:
        show_plan(folder, decided)
    removed = 0
    if decided.entries and not dry_run:
        if not agreed(f"Remove {counted(decided.entries, 'entry', 'entries')}?", yes=yes):
            raise typer.Exit(1)
        with progress("Removing") as advance:
            removed = removal.remove(DiskStore(folder), decided.keys, decided=decided.moment, advance=advance)
        if not as_json:
            print(f"Removed {counted(removed, 'entry', 'entries')}.")
    if as_json:
        print_result(folder, decided, removed=removed, dry_run=dry_run)
