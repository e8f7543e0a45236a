"""`dspy-cachectl run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dspy_cachectl.cli.scripts import Outcome

MODES = ("replay", "record", "new", "all")


def run_script(
    context: typer.Context,
    *,
    phase: Annotated[
        str | None, typer.Option("--phase", metavar="NAME", help="The phase to open around the script.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", metavar="NAME", help="What its cache does: REUSE, FRESH, REFRESH, REPLAY or OFF."),
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--run-id", metavar="RUN", help="Draw under this run, and serve what it has drawn.")
    ] = None,
    force_recompute: Annotated[
        bool, typer.Option("--force-recompute", help="Serve nothing that was stored before; store what is bought.")
    ] = False,
    cassette: Annotated[
        Path | None, typer.Option("--cassette", metavar="FILE", help="Replay this cassette, or record it (--mode).")
    ] = None,
    mode: Annotated[
        str, typer.Option("--mode", metavar="MODE", help="What the cassette does: replay, record, new or all.")
    ] = "replay",
    is_module: Annotated[bool, typer.Option("-m", help="SCRIPT is the name of a module.")] = False,
    summary: Annotated[
        bool, typer.Option("--summary/--no-summary", help="Whether to say at the end what happened to its calls.")
    ] = True,
    script: Annotated[str, typer.Argument(metavar="SCRIPT", help="The script to run.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS...", help="The arguments of the script.")
    ] = None,
) -> None:
    """Run a script under a policy, without touching its code.

    Options of this command stand before the script; what stands after it is the script's. Phases that the script opens
    itself rule inside. The exit code is the script's; the summary goes to the standard error stream.
    """
    if mode not in MODES:
        raise typer.BadParameter(f"one of {', '.join(MODES)}, not {mode!r}", param_hint="--mode")
    if cassette is None and context.get_parameter_source("mode").name != "DEFAULT":  # type: ignore[union-attr]
        raise typer.BadParameter("it says what a cassette does; name one with --cassette", param_hint="--mode")
    if policy is not None:
        _check_policy(policy)
    # The script, and the processes that it starts, find the store where they always look for it.
    if context.obj.named is not None:
        os.environ["DSPY_CACHECTL_STORE"] = context.obj.named

    from dspy_cachectl.cli.scripts import Script
    from dspy_cachectl.cli.scripts import run_script as run

    outcome = run(
        Script(script, arguments or [], is_module),
        phase_name=phase,
        policy=policy,
        run_id=run_id,
        force_recompute=force_recompute,
        cassette_path=cassette,
        mode=mode,  # type: ignore[arg-type]
    )
    sys.stdout.flush()
    if summary:
        _print_summary(outcome)
    raise typer.Exit(outcome.code)


def _check_policy(name: str) -> None:
    from dspy_cachectl.errors import ConfigurationError
    from dspy_cachectl.policy import Policy

    try:
        Policy.named(name)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error), param_hint="--policy") from error


def _print_summary(outcome: Outcome) -> None:
    print(f"\ndspy-cachectl: {outcome.stats}", file=sys.stderr)
    if outcome.run is not None and outcome.run.run_id is not None and outcome.cassette is None:
        print(f"run: {outcome.run.run_id} (go on with it, or repeat it, with --run-id)", file=sys.stderr)
    if outcome.cassette is not None:
        cassette = outcome.cassette
        unused = f", {len(cassette.unused)} unused recordings" if cassette.unused else ""
        print(f"cassette: {cassette.path}: {cassette.recorded} recorded{unused}", file=sys.stderr)
