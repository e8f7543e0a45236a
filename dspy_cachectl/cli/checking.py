"""`dspy-cachectl verify`, `doctor` and `config`: whether a store, and what is around it, is as it has to be."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Annotated, Any

import typer

from dspy_cachectl import manage
from dspy_cachectl.boundary.shown import harmless
from dspy_cachectl.cli.options import AsJson, Consent, DryRun, Yes, library_in, number_in, wrong_usage
from dspy_cachectl.cli.output import console, print_json, print_line, print_table, styled
from dspy_cachectl.config import DEFAULT_PREDICTIONS
from dspy_cachectl.config.checks import ON
from dspy_cachectl.reports.progress_bar import progress
from dspy_cachectl.reports.texts import plural, size
from dspy_cachectl.stores.listing import Reader
from dspy_cachectl.stores.reader import FolderReader

DAMAGED = 3
_SHOWN = 100
_STYLES = {"ok": "green", "warning": "yellow", "error": "red"}

config_app = typer.Typer(name="config", help="See the settings.", no_args_is_help=True, rich_markup_mode=None)


def verify_store(
    context: typer.Context,
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move what is damaged to <store>.quarantine; nothing is destroyed.")
    ] = False,
    predictions: Annotated[
        str | None,
        typer.Option(
            "--predictions",
            metavar="FOLDER",
            parser=library_in,
            help="Check these kept predictions, too: a folder, or s3://bucket/prefix.",
        ),
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Check the database and every entry. Exits with 3 if something is damaged, also after --repair.

    Entries of a newer version are named, and are no damage.
    """
    consent = Consent(yes=yes or not repair, dry_run=dry_run, as_json=as_json)
    consent.check()
    reader: Reader = context.obj.reader()
    checked = reader.path if isinstance(reader, FolderReader) else None
    with progress("Checking") as advance:
        if checked is None:
            found = _shared_store().verify(reader, predictions=predictions or None, advance=advance)
        else:
            found = manage.verification.verify(checked, predictions=predictions or None, advance=advance)
    if not as_json:
        _print_report(reader.location, found)
    done, left = None, found
    question = f"Move aside what is damaged ({len(found.damage):,})?"
    if repair and found.damage and consent.given(question, refused=DAMAGED):
        with progress("Repairing") as advance:
            if checked is None:
                done, left = _shared_store().repair(reader, found, predictions=predictions or None, advance=advance)
            else:
                done, left = manage.repair.repair(checked, found, predictions=predictions or None, advance=advance)
        if not as_json:
            _print_repair(done, left)
    if as_json:
        print_json({"store": reader.location, **vars(found), "repaired": done, "left": left.flaws})
    if left.damage:
        raise typer.Exit(DAMAGED)


def _shared_store() -> Any:
    from dspy_cachectl.manage import shared_store  # it loads a client

    return shared_store


def _print_report(where: str, found: manage.verification.Report) -> None:
    print_line(where)
    print_line(f"Looked at {plural(found.entries, 'row')}." if found.exists else "Nothing is stored yet.")
    if found.flaws:
        rows = ((flaw.kind.name.lower(), flaw.where, flaw.message) for flaw in found.flaws[:_SHOWN])
        print_table(("flaw", "where", "what"), rows, whole=("flaw",), names=("where",))
        if len(found.flaws) > _SHOWN:
            print_line(f"... and {len(found.flaws) - _SHOWN:,} more; --json prints all.")
    counts = Counter(flaw.kind for flaw in found.flaws)
    for kind in manage.verification.Kind:
        if counts[kind]:
            print_line(f"{counts[kind]:,} {kind.name.lower()}: {kind.value}")
    if found.listed or found.unlisted:
        print_line(f"The lists have {found.listed:,} more, and no longer {found.unlisted:,} that were gone.")
    if found.unmended:
        print_line(f"The lists are as they were: {found.unmended}")
    if not found.damage:
        print_line("Nothing is damaged.")


def _print_repair(done: manage.repair.Repaired, left: manage.verification.Report) -> None:
    where = f", to {done.quarantine}" if done.quarantine is not None else ""
    print_line(f"Moved {plural(done.rows, 'row')} and {plural(done.files, 'file')} aside{where}.")
    if done.marks:
        print_line(f"Filed {plural(done.marks, 'answer')} anew under what they are known again by.")
    if done.kept is not None:
        print_line(f"Built the database anew with the {plural(done.kept, 'row')} that can be read.")
    for problem in done.problems:
        print_line(f"Not done: {problem}.")
    if left.damage:
        print_line(f"{plural(len(left.damage), 'flaw is', 'flaws are')} left.")
    else:
        print_line("Nothing is damaged now.")


def check_surroundings(
    context: typer.Context,
    *,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", parser=number_in, help="How long a tracking server may take."),
    ] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Check versions, configuration, store, disk, outbox and tracking server. Exits with 1 if there is an error."""
    around = manage.diagnosis.Surroundings(context.obj.folder_if_any, timeout, context.obj.every_shared)
    found = manage.diagnosis.diagnose(around)
    if as_json:
        print_json(found)
    else:
        for finding in found:
            console().print(styled((f"{finding.level:<8}", _STYLES[finding.level])), end="")
            print_line(f"{finding.name:<15}{finding.message}", indent=23, before=8)
            if finding.remedy and finding.level != "ok":
                print_line(f"{'':<23}-> {finding.remedy}", indent=26)
    if any(finding.level == "error" for finding in found):
        raise typer.Exit(1)


@config_app.command("show")
def show_settings(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Show every setting, and where it comes from. Exits with 1 if one cannot be used."""
    with wrong_usage("--store"):
        found = manage.configuration.configuration(store=context.obj.named)
    if as_json:
        print_json(found)
    else:
        print_table(
            ("setting", "value", "comes from"),
            ((item.name, _with_unit(item), item.origin) for item in found.settings),
            whole=("setting",),
        )
    for problem in found.problems:
        print(f"dspy-cachectl: {harmless(problem)}", file=sys.stderr)
    if found.problems:
        raise typer.Exit(1)


def _with_unit(item: manage.configuration.Setting) -> str:
    """Write a setting's value, and what that is: bytes and seconds in a larger unit, and where predictions are kept."""
    value, name = json.dumps(item.value, default=str), item.name.rpartition(".")[2]
    if name.endswith("_bytes") and isinstance(item.value, int):
        return f"{value} ({size(item.value)})"
    if name.endswith("max_age") and isinstance(item.value, (int, float)):
        return f"{value} ({item.value / 86400:.3g} days)" if item.value >= 86400 else f"{value} (seconds)"
    return f"{value} ({DEFAULT_PREDICTIONS})" if (name, item.value) == ("predictions", ON) else value
