"""`dspy-cachectl runs`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from dspy_cachectl.cli.consent import DryRun, Yes
from dspy_cachectl.cli.options import AsJson
from dspy_cachectl.cli.output import age_text, console, print_json, print_table
from dspy_cachectl.stores.reader import FolderReader

app = typer.Typer(
    name="runs",
    help="List fresh runs, and whether each is complete or can be resumed; `runs rm` removes them.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def show_runs(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List fresh runs, and whether each is complete or can be resumed; `runs rm` removes them."""
    if context.invoked_subcommand is not None:
        return
    from dspy_cachectl.manage.run_list import list_runs

    found = list_runs(FolderReader(context.obj.folder()))
    if as_json:
        print_json([run.as_dict() for run in found])
    elif not found:
        console().print("There are no runs.")
    else:
        now = time.time()
        print_table(
            ("run", "phase", "began", "temperature", "draws", "state", "models"),
            (
                (
                    run.run_id,
                    run.phase or "-",
                    "-" if run.began is None else f"{age_text(now - run.began)} ago",
                    "-" if run.temperature is None else f"{run.temperature:g}",
                    f"{run.draws:,}",
                    f"{run.state}, {run.failed} failed" if run.failed else run.state,
                    ", ".join(run.models) or "-",
                )
                for run in found
            ),
            right=("draws",),
        )


@app.command("rm")
def remove_runs(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="The ids of runs, or patterns such as 'eval-*'.")],
    *,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove runs: their draws, and what is known of them."""
    from dspy_cachectl.cli.clear import clear
    from dspy_cachectl.manage.run_list import list_runs, selection_of

    folder = context.obj.folder()
    selection = selection_of(list_runs(FolderReader(folder)), runs)
    clear(folder, selection, yes=yes, dry_run=dry_run, as_json=as_json)
