"""`dspy-cachectl mlflow`: what waits for a tracking server, and delivering it."""

from __future__ import annotations

from typing import Annotated

import typer

from dspy_cachectl.cli.options import AsJson, DryRun, number_in
from dspy_cachectl.cli.output import print_json, print_line, print_table
from dspy_cachectl.reports.texts import when

app = typer.Typer(
    name="mlflow",
    short_help="Deliver results that wait for a server.",
    help="See, deliver and discard the results that wait for an MLflow server.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("status", short_help="Show the results that wait.")
def show_status(as_json: AsJson = False) -> None:
    """Show the results that wait in the outbox. Nothing is sent."""
    from dspy_cachectl.tracking import status

    waiting = status()
    if as_json:
        print_json(waiting)
    else:
        print_table(
            ("written", "record", "phase", "server", "run", "tries", "why it waits"),
            (
                (
                    when(item.written),
                    item.uid[:8],
                    item.phase or "",
                    item.tracking_uri or "",
                    item.run_id or "",
                    str(item.tries),
                    "being delivered" if item.being_delivered else item.reason or "not tried yet",
                )
                for item in waiting
            ),
            right=("tries",),
            whole=("record", "run"),
            names=("phase", "server"),
            spare=("tries", "phase", "run", "written"),
            nothing="Nothing waits.",
        )


@app.command("sync", short_help="Deliver the results that wait.")
def deliver_all(
    records: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECORD", help="Records, as `mlflow status` names them. Default: all.", show_default=False
        ),
    ] = None,
    *,
    uri: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Deliver everything to this server. Default: where each record was to go."),
    ] = None,
    run_id: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Send these records to this run from now on; theirs was deleted, say."),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Give these records a run of their own in this experiment from now on."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", parser=number_in, help="How long each record may take.")
    ] = 30.0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Deliver the results that wait in the outbox. Exits with 1 if some of them go on waiting."""
    from dspy_cachectl.tracking import sync

    outcomes = sync(records or (), timeout=timeout, uri=uri, run_id=run_id, experiment=experiment, dry_run=dry_run)
    if as_json:
        print_json(outcomes)
    else:
        print_table(
            ("record", "status", "run", "reason"),
            ((str(item.uid)[:8], item.status, item.run_id or "", item.reason or "") for item in outcomes),
            whole=("record", "status", "run"),
            spare=("run",),
            nothing="Nothing waits.",
        )
    if not dry_run and any(item.status in ("pending", "damaged") for item in outcomes):
        raise typer.Exit(1)


@app.command("discard", short_help="Throw results away that wait.")
def throw_away(
    records: Annotated[list[str], typer.Argument(metavar="RECORD", help="Records, as `mlflow status` names them.")],
) -> None:
    """Throw results away that wait in the outbox, such as those for a run that was deleted."""
    from dspy_cachectl.tracking import discard

    for uid in discard(records):
        print_line(f"Discarded {uid}.")
