"""`dspy-cachectl export` and `import`."""

from __future__ import annotations

import pkgutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, cast

import typer

from dspy_cachectl import manage
from dspy_cachectl.boundary.shown import harmless
from dspy_cachectl.cli.options import AsJson, DryRun, StoreOption, selecting, told_unknown
from dspy_cachectl.cli.output import aside_of, check_not_both, print_json, print_line
from dspy_cachectl.config import settings
from dspy_cachectl.manage.selection import Selection
from dspy_cachectl.reports.progress_bar import progress
from dspy_cachectl.reports.texts import plural, size
from dspy_cachectl.stores import Store
from dspy_cachectl.stores.listing import Reader
from dspy_cachectl.stores.reader import FolderReader


@selecting
def export_entries(
    context: typer.Context,
    *,
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file; compressed where it ends in .zst. Standard output is -.")
    ],
    selection: Selection,
    redact_with: Annotated[
        str | None,
        typer.Option("--redact-with", metavar="MODULE:FUNCTION", help="Apply this function to every text."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Do not encrypt it, though keys for that are set.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write answers to a cassette: for another store, or for tests that replay it with cachectl.cassette().

    Keys and other secrets are removed from its texts. Where a key is set it is encrypted. Exits with 1 where nothing is
    there to be written.
    """
    check_not_both(path, as_json=as_json)
    redact = None if redact_with is None else _function(redact_with)
    reader: Reader = context.obj.reader()
    nothing = told_unknown(reader, selection)
    with progress("Exporting") as advance:
        done = manage.exchange.export(reader, selection, path, redact=redact, force=force, plain=plain, advance=advance)
    if as_json:
        print_json({"store": reader.location, "file": path if done.entries else None, **vars(done)})
    else:
        _print_exported(path, done, nothing)
    if not done.entries:
        raise typer.Exit(1)


def _print_exported(path: Path, done: manage.exchange.Exported, nothing: str) -> None:
    with aside_of(path):
        if done.entries:
            print_line(f"Wrote {plural(done.entries, 'answer')}, {size(done.bytes)}: {path}")
        else:
            print_line("Nothing that is stored could be written." if done.left_out else nothing)
        _print_left_out(done.left_out)


def import_entries(
    context: typer.Context,
    *,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE...", help="Cassettes, or files that export wrote; or a folder of DSPy's cache."),
    ] = None,
    from_dspy: Annotated[
        bool,
        typer.Option("--from-dspy", help="Import DSPy's own cache: the folder, or where DSPy keeps it by default."),
    ] = False,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The server that programs ask, for recordings of cassette() and for DSPy's cache. Default: the "
            "provider's own.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace answers that are in the store.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Put the answers of cassettes, or of DSPy's own cache, into the store. Those that are there are kept.

    Of a file that export wrote every answer comes under the key it had. Of one that cassette() recorded, the answers
    outside phases, those of phases that reuse, and with the provider's own server the draws of runs.

    DSPy's cache holds no requests: its answers are filed properly as programs ask for them, outside runs. Its pickles
    run nothing. Exits with 1 if something is damaged or refused; the rest is imported.
    """
    if not paths and not from_dspy:
        raise typer.BadParameter("name a file, or --from-dspy", param_hint="FILE")
    if from_dspy and overwrite:
        raise typer.BadParameter("answers of DSPy's cache replace nothing", param_hint="--overwrite")

    store = _writable(context.obj)
    found: dict[Path, manage.exchange.Imported] = {}
    for path in paths or [manage.dspy_cache.default_folder()]:
        with progress(f"Importing {harmless(path.name)}") as advance:
            if from_dspy:
                found[path] = manage.dspy_cache.import_folder(
                    store, path, endpoint=endpoint, dry_run=dry_run, advance=advance
                )
            else:
                found[path] = manage.exchange.import_file(
                    store, path, endpoint=endpoint, overwrite=overwrite, dry_run=dry_run, advance=advance
                )
    if as_json:
        files = [{"file": path, **vars(done)} for path, done in found.items()]
        print_json({"store": store.location, "dry_run": dry_run, "files": files})
    else:
        for path, done in found.items():
            _print_imported(path, done, dry_run=dry_run)
    if any(done.damage for done in found.values()):
        raise typer.Exit(1)


def _writable(option: StoreOption) -> Store:
    from dspy_cachectl.stores.disk import DiskStore

    reader = option.reader()
    if isinstance(reader, FolderReader):
        return DiskStore(reader.path, max_bytes=settings().disk_bytes)
    return cast("Store", reader)


def _print_imported(path: Path, done: manage.exchange.Imported, *, dry_run: bool) -> None:
    verb = "Would import" if dry_run else "Imported"
    print_line(f"{verb} {plural(done.added + done.replaced, 'answer')}: {path}")
    if done.replaced:
        print_line(f"  {done.replaced:,} of them in place of answers that were there")
    if done.kept:
        print_line(f"  kept what was there: {done.kept:,}; --overwrite replaces it")
    _print_left_out(done.left_out)
    for problem in done.damage:
        print_line(f"  {problem}")


def _print_left_out(left_out: Counter[str]) -> None:
    for reason, count in left_out.most_common():
        print_line(f"  left out: {count:,} {reason}")


def _function(name: str) -> Callable[[str], str]:
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Callable[[str], str] = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise typer.BadParameter(f"{error}; write it as module:function", param_hint="--redact-with") from error
    if not callable(found):
        raise typer.BadParameter(f"{name} is no function from text to text", param_hint="--redact-with")
    return found
