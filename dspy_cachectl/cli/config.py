"""`dspy-cachectl config`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import typer

from dspy_cachectl.cli.options import AsJson
from dspy_cachectl.cli.output import plain, print_json, print_table

app = typer.Typer(name="config", help="See the settings.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def config() -> None:
    """See the settings."""


@app.command("show")
def show_settings(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Show every setting, and where it comes from. Exits with 1 if one cannot be used."""
    from dspy_cachectl.manage.origins import configuration

    by_option = context.find_root().get_parameter_source("store")
    found = configuration(
        store=context.obj.named if by_option is not None and by_option.name == "COMMANDLINE" else None
    )
    if as_json:
        print_json({"settings": [asdict(setting) for setting in found.settings], "problems": found.problems})
    else:
        print_table(
            ("setting", "value", "comes from"),
            ((item.name, json.dumps(item.value, default=str), item.origin) for item in found.settings),
        )
    for problem in found.problems:
        print(f"dspy-cachectl: {plain(problem)}", file=sys.stderr)
    if found.problems:
        raise typer.Exit(1)
