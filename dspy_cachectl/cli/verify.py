"""`dspy-cachectl verify`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspy_cachectl.cli.confirm import Consent, DryRun, Yes
from dspy_cachectl.cli.options import AsJson
from dspy_cachectl.cli.output import console, print_json, print_table
from dspy_cachectl.reports.progress_bar import progress
from dspy_cachectl.reports.texts import harmless, plural

if TYPE_CHECKING:
    from dspy_cachectl.manage.repair import Repaired
    from dspy_cachectl.manage.verification import Report

DAMAGED = 3
_SHOWN = 100


def verify_store(
    context: typer.Context,
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move what is damaged to <store>.quarantine; nothing is destroyed.")
    ] = False,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", metavar="FOLDER", help="Check this folder of kept predictions, too."),
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Check the database and every entry. Exits with 3 if something is damaged, also after --repair.

    Entries of a newer version are named, and are no damage.
    """
    from dspy_cachectl.manage import verification
    from dspy_cachectl.manage.repair import Repaired
    from dspy_cachectl.manage.repair import repair as mend

    consent = Consent(yes=yes or not repair, dry_run=dry_run, as_json=as_json)
    folder: Path = context.obj.folder()
    with progress("Checking") as advance:
        found = verification.verify(folder, predictions=predictions, advance=advance)
    if not as_json:
        _print_report(folder, found)
    done, left = Repaired(), found
    question = f"Move aside what is damaged ({len(found.damage):,})?"
    if repair and found.damage and consent.given(question, refused=DAMAGED):
        with progress("Repairing") as advance:
            done, left = mend(folder, found, predictions=predictions, advance=advance)
        if not as_json:
            _print_repair(done, left)
    if as_json:
        print_json(_as_data(folder, found, done if repair and not dry_run else None, left))
    if left.damage:
        raise typer.Exit(DAMAGED)


def _as_data(folder: Path, found: Report, done: Repaired | None, left: Report) -> dict[str, Any]:
    data: dict[str, Any] = {
        "store": str(folder),
        "exists": found.exists,
        "entries": found.entries,
        "clean": not found.damage,
        "flaws": [_flaw(flaw) for flaw in found.flaws],
    }
    if done is not None:
        data["repair"] = {
            "quarantine": None if done.quarantine is None else str(done.quarantine),
            "rows": done.rows,
            "files": done.files,
            "kept": done.kept,
            "problems": done.problems,
            "left": [_flaw(flaw) for flaw in left.damage],
        }
    return data


def _flaw(flaw: Any) -> dict[str, Any]:
    return {"kind": flaw.kind.word, "where": flaw.where, "message": flaw.message, "damage": flaw.is_damage}


def _print_report(folder: Path, found: Report) -> None:
    from rich.text import Text

    from dspy_cachectl.manage.verification import Kind

    out = console()
    out.print(Text(harmless(str(folder))), soft_wrap=True)
    if not found.exists:
        out.print("Nothing is stored yet.")
    else:
        out.print(f"Looked at {plural(found.entries, 'row')}.")
    if found.flaws:
        print_table(
            ("flaw", "where", "what"), ((flaw.kind.word, flaw.where, flaw.message) for flaw in found.flaws[:_SHOWN])
        )
        if len(found.flaws) > _SHOWN:
            out.print(f"... and {len(found.flaws) - _SHOWN:,} more; --json prints all.")
    counts = Counter(flaw.kind for flaw in found.flaws)
    for kind in Kind:
        if counts[kind]:
            out.print(f"{counts[kind]:,} {kind.word}: {kind.value}", soft_wrap=True)
    if not found.damage:
        out.print("Nothing is damaged.")


def _print_repair(done: Repaired, left: Report) -> None:
    from rich.text import Text

    out = console()
    moved = f"Moved {plural(done.rows, 'row')} and {plural(done.files, 'file')} aside"
    where = f", to {harmless(str(done.quarantine))}" if done.quarantine is not None else ""
    out.print(Text(f"{moved}{where}."), soft_wrap=True)
    if done.kept is not None:
        out.print(f"Built the database anew with the {plural(done.kept, 'row')} that can be read.")
    for problem in done.problems:
        out.print(Text(f"Not done: {problem}."), soft_wrap=True)
    if left.damage:
        out.print(f"{plural(len(left.damage), 'flaw is', 'flaws are')} left.")
    else:
        out.print("Nothing is damaged now.")
