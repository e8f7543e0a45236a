"""`dspy-cachectl clear` and `prune`, and `runs` with `runs rm`: what is in the way, and letting it go."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from dspy_cachectl import manage
from dspy_cachectl.cli.options import (
    AsJson,
    Consent,
    DryRun,
    Yes,
    age_in,
    folder_in,
    selecting,
    tell_unread,
    told_unknown,
    wrong_usage,
)
from dspy_cachectl.cli.output import print_json, print_line, print_table
from dspy_cachectl.config import is_objects, settings
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.manage.selection import Selection, parse_size
from dspy_cachectl.reports.progress_bar import progress
from dspy_cachectl.reports.texts import age, plural, size, when
from dspy_cachectl.stores.listing import Reader

_SHOWN = 20

runs_app = typer.Typer(
    name="runs",
    short_help="List fresh runs; `runs rm` removes them.",
    help="List fresh runs, and whether each is complete or can be resumed; `runs rm` removes them.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@wrong_usage()
def _prunable(text: object) -> Path | None:
    if is_objects(str(text)):
        raise ConfigurationError(
            "nothing in an object store is pruned: it has rules of its own, and `dspy-cachectl predictions clear "
            "--older-than AGE --library URL` removes there what you say"
        )
    return folder_in(text)


@selecting
def clear_entries(
    context: typer.Context,
    *,
    selection: Selection,
    everything: Annotated[bool, typer.Option("--all", help="Everything in the store.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove entries: those that fit all selectors, or --all of them.

    Programs that use the store go on: they find an entry, or none. What they store meanwhile stays.
    """
    if selection.is_empty and not everything:
        raise typer.BadParameter("say what to remove, for example --run or --older-than, or --all", param_hint="--all")
    if everything and not selection.is_empty:
        raise typer.BadParameter("--all is everything; leave it out to select", param_hint="--all")
    reader: Reader = context.obj.reader()
    nothing = told_unknown(reader, selection)
    chosen = Selection(kinds=("*",)) if everything else selection
    _clear(reader, chosen, Consent(yes, dry_run, as_json), nothing=nothing)


def _clear(reader: Reader, selection: Selection, consent: Consent, *, nothing: str) -> None:
    with progress("Looking") as advance:
        decided = manage.removal.plan(reader, selection, advance=advance)
    tell_unread(decided.unread)
    remove = functools.partial(manage.removal.remove, reader, decided)
    _carry_out(reader.location, decided, consent, remove, nothing=nothing)


def prune_entries(
    context: typer.Context,
    *,
    older_than: Annotated[
        float | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            parser=age_in,
            help="Remove what was stored longer ago: 90s, 15m, 24h, 7d, 2w.",
        ),
    ] = None,
    max_size: Annotated[
        int | None,
        typer.Option(
            "--max-size",
            metavar="SIZE",
            parser=wrong_usage()(parse_size),
            help="Remove the oldest until this much is left, such as 10GB. Default: the configured disk_bytes.",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            metavar="FOLDER",
            parser=_prunable,
            help="Prune this folder of kept predictions too: what is older than the configured predictions_max_age, "
            "and the oldest over 2 GiB.",
        ),
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove what is expired, and the oldest entries over the size limit.

    An answer that was bought in a phase with a max_age is expired when it is older than every max_age configured.
    """
    from dspy_cachectl.predictions.library import Library

    consent = Consent(yes, dry_run, as_json)
    consent.check()
    reader: Reader = context.obj.reader()
    limits = manage.removal.Limits.configured(older_than=older_than, max_bytes=max_size)
    decided = manage.removal.plan_pruning(reader, limits)
    kept = None if predictions is None else manage.snapshots.plan_pruning(Library.configured(predictions))
    _carry_out(
        reader.location, decided, consent, functools.partial(manage.removal.prune, reader, decided, limits), kept
    )


def clear_everything(context: typer.Context, *, yes: bool) -> None:
    """Remove every answer and every kept prediction, wherever the configuration says that they are."""
    from dspy_cachectl.predictions.library import Library

    reader, consent = context.obj.reader(), Consent(yes, dry_run=False, as_json=False)
    kept = None if keeps_a_bucket() else manage.snapshots.plan(Library.configured(settings().predictions_place))
    with progress("Looking") as advance:
        decided = manage.removal.plan(reader, Selection(kinds=("*",)), advance=advance)
    _carry_out(reader.location, decided, consent, functools.partial(manage.removal.remove, reader, decided), kept)


def keeps_a_bucket() -> bool:
    """Tell whether kept predictions are in an object store, where they are others' too and stay, and say so."""
    place = settings().predictions_place
    if is_objects(place):
        print_line(f"Kept predictions in {place} stay: they are others', too.")
        print_line("`dspy-cachectl predictions clear --all` removes them.")
    return is_objects(place)


def _carry_out(
    where: str,
    decided: manage.removal.Removal,
    consent: Consent,
    remove: Callable[..., int],
    kept: manage.snapshots.SnapshotRemoval | None = None,
    *,
    nothing: str = "",
) -> None:
    """Show what would go, ask, remove it, and say what is gone; or why nothing would."""
    files = [] if kept is None else kept.files
    consent.check(decided.keys or kept)
    _show(f"Answers in {where}" if kept is not None else where, decided, consent, nothing)
    if kept is not None:
        there, nothing = kept.folder.is_dir(), manage.snapshots.nothing_in(kept.folder)
        consent.say(f"Kept predictions in {kept.folder}" if there else nothing)
        for line in kept.lines() if kept else ("nothing",) if there else ():
            consent.say(f"To be removed: {line}")
    removed, also = 0, f" and {kept}" if kept else ""
    if (decided.keys or kept) and consent.given(f"Remove {_entries(len(decided.keys))}{also}?"):
        with progress("Removing") as advance:
            removed = remove(advance=advance)
        consent.say(f"Removed {_entries(removed)}.")
        if kept is not None:
            files = kept.remove()
            consent.say(f"Removed {plural(len(files), 'file')} of predictions.")
    if consent.as_json:
        facts = {"store": where, "entries": len(decided.keys), **vars(decided), "removed": removed}
        del facts["keys"]  # there may be millions
        print_json({**facts, "dry_run": consent.dry_run, "predictions": [path.name for path in files]})


@runs_app.callback()
def show_runs(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List fresh runs, and whether each is complete or can be resumed; `runs rm` removes them."""
    if context.invoked_subcommand is not None:
        return
    now = time.time()
    found = manage.listed_runs.list_runs(context.obj.reader())
    if as_json:
        print_json(found)
        return
    print_table(
        ("run", "phase", "began", "temperature", "draws", "state", "models"),
        (
            (
                run.run,
                run.phase,
                "" if run.began is None else f"{age(now - run.began)} ago",
                "" if run.temperature is None else f"{run.temperature:g}",
                f"{run.draws:,}",
                ", ".join([run.state, *_lost(run)]),
                ", ".join(run.models),
            )
            for run in found
        ),
        right=("began", "temperature", "draws"),
        whole=("run",),
        names=("phase", "models"),
        spare=("temperature", "phase", "models"),
        nothing="There are no runs.",
    )


def _lost(run: manage.listed_runs.ListedRun) -> Iterator[str]:
    if run.failed:
        yield f"{run.failed:,} failed"
    if run.gone:
        yield f"{run.gone:,} removed to make room"


@runs_app.command("rm", short_help="Remove runs and their draws.")
def remove_runs(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="The ids of runs, or patterns such as 'eval-*'.")],
    *,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove runs: their draws, and what is known of them."""
    reader = context.obj.reader()
    known = manage.listed_runs.list_runs(reader)
    _clear(reader, manage.listed_runs.selection_of(known, runs), Consent(yes, dry_run, as_json), nothing="")


def _entries(count: int) -> str:
    return plural(count, "entry", "entries")


def _show(where: str, decided: manage.removal.Removal, consent: Consent, nothing: str) -> None:
    """Print what would go, for people."""
    if consent.as_json:
        return
    print_line(where)
    if decided.newer:
        print_line(f"Of a newer version of this package, and not removed: {_entries(decided.newer)}.")
    if not decided.keys:
        print_line(f"{nothing} Nothing is to be removed.".lstrip())
        return
    others = len(decided.keys) - decided.draws.total()  # which `stats` does not count
    of_runs = f" ({others:,} about runs)" if others else ""
    print_line(f"To be removed: {_entries(len(decided.keys))}{of_runs}, which hold {size(decided.bytes)},")
    print_line(f"stored between {when(decided.oldest)} and {when(decided.newest)}.")
    for reason, count in decided.reasons.most_common():
        print_line(f"  {count:,} {reason}")
    print_table(("by", "name", "entries", "size"), _shares(decided), right={"entries", "size"}, names=("name",))


def _shares(decided: manage.removal.Removal) -> Iterator[tuple[str, ...]]:
    for by, shares in decided.by.items():
        found = sorted(shares.items(), key=lambda item: (-item[1].entries, item[0]))
        for name, share in found[:_SHOWN]:
            yield by, name, f"{share.entries:,}", size(share.bytes)
        rest = [share for _, share in found[_SHOWN:]]
        if rest:
            entries, bytes_ = sum(share.entries for share in rest), sum(share.bytes for share in rest)
            yield by, f"and {len(rest):,} more", f"{entries:,}", size(bytes_)
