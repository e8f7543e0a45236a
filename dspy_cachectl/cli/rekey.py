"""`dspy-cachectl rekey`: encrypting what is kept with another key."""

from __future__ import annotations

from typing import Annotated

import typer

from dspy_cachectl import manage
from dspy_cachectl.boundary.shown import harmless
from dspy_cachectl.cli.options import AsJson
from dspy_cachectl.cli.output import print_json, print_line
from dspy_cachectl.reports.progress_bar import progress


def rekey_all(
    context: typer.Context,
    *,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="FILE...", help="Cassettes and archives, in place of the store.")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Decrypt it instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Encrypt the store and the kept predictions with the first key of DSPY_CACHECTL_ENCRYPTION_KEY.

    What is plain, and what a key behind it has encrypted, is written anew; age, run and use stay. Programs may go on.
    Interrupted it is begun again: what is done is done. Exits with 1 if something cannot be read, which stays as it is.
    """
    manage.rekeying.check_keys(plain=plain)
    found: dict[str, manage.rekeying.Rekeyed] = {}
    for path in paths or []:
        found[path] = manage.rekeying.rekey_cassette(path, plain=plain)
    if not paths:
        if not context.obj.is_in_memory():
            reader = context.obj.reader()
            with progress("Encrypting" if not plain else "Decrypting") as advance:
                found[reader.location] = manage.rekeying.rekey_store(reader, plain=plain, advance=advance)
        from dspy_cachectl.predictions.library import Library  # which takes long to load

        library = Library.configured()
        found[library.shown] = manage.rekeying.rekey_predictions(library, plain=plain)
    if as_json:
        print_json([{"where": where, **vars(done)} for where, done in found.items()])
    else:
        for where, done in found.items():
            print_line(f"{done.changed:,} written anew, {done.same:,} left as they were: {harmless(where)}")
            for reason, count in done.left_out.items():
                print_line(f"  left out: {count:,} {reason}")
    if any(done.left_out for done in found.values()):
        raise typer.Exit(1)
