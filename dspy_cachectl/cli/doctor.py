"""`dspy-cachectl doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from dspy_cachectl.cli.options import AsJson
from dspy_cachectl.cli.output import console, plain, print_json

_STYLES = {"ok": "green", "warning": "yellow", "error": "red"}


def check_surroundings(
    context: typer.Context,
    *,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long a tracking server may take.")
    ] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Check versions, configuration, store, disk, outbox and tracking server. Exits with 1 if there is an error."""
    from dspy_cachectl.manage.diagnosis import Surroundings, diagnose

    found = diagnose(Surroundings(context.obj.folder, timeout))
    if as_json:
        print_json([asdict(finding) for finding in found])
    else:
        from rich.text import Text

        out = console()
        for finding in found:
            line = Text.assemble(
                (f"{finding.level:<8}", _STYLES[finding.level]), f"{finding.name:<15}", plain(finding.message)
            )
            out.print(line, soft_wrap=True)
            if finding.remedy and finding.level != "ok":
                out.print(Text(f"{'':<23}-> {plain(finding.remedy)}"), soft_wrap=True)
    if any(finding.level == "error" for finding in found):
        raise typer.Exit(1)
