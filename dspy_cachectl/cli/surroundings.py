"""`dspy-cachectl doctor` and `config`: what the package finds around it."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from dspy_cachectl import manage
from dspy_cachectl.cli.options import AsJson
from dspy_cachectl.cli.output import console, print_json, print_line, print_table
from dspy_cachectl.reports.texts import harmless

_STYLES = {"ok": "green", "warning": "yellow", "error": "red"}

config_app = typer.Typer(name="config", help="See the settings.", no_args_is_help=True, rich_markup_mode=None)


def check_surroundings(
    context: typer.Context,
    *,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long a tracking server may take.")
    ] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Check versions, configuration, store, disk, outbox and tracking server. Exits with 1 if there is an error."""
    found = manage.diagnosis.diagnose(manage.diagnosis.Surroundings(context.obj.folder, timeout))
    if as_json:
        print_json(found)
    else:
        from rich.text import Text

        for finding in found:
            level = (f"{finding.level:<8}", _STYLES[finding.level])
            line = Text.assemble(level, f"{finding.name:<15}", harmless(finding.message))
            console().print(line, soft_wrap=True)
            if finding.remedy and finding.level != "ok":
                print_line(f"{'':<23}-> {finding.remedy}")
    if any(finding.level == "error" for finding in found):
        raise typer.Exit(1)


@config_app.callback()
def config() -> None:
    """See the settings."""


@config_app.command("show")
def show_settings(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Show every setting, and where it comes from. Exits with 1 if one cannot be used."""
    by_option = context.find_root().get_parameter_source("store")
    store = context.obj.named if by_option is not None and by_option.name == "COMMANDLINE" else None
    found = manage.configuration.configuration(store=store)
    if as_json:
        print_json(found)
    else:
        print_table(
            ("setting", "value", "comes from"),
            ((item.name, json.dumps(item.value, default=str), item.origin) for item in found.settings),
        )
    for problem in found.problems:
        print(f"dspy-cachectl: {harmless(problem)}", file=sys.stderr)
    if found.problems:
        raise typer.Exit(1)
