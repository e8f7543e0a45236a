"""`dspy-cachectl gate`: whether a change passes, by what was measured before and after it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from dspy_cachectl import manage
from dspy_cachectl.boundary.shown import harmless_lines
from dspy_cachectl.cli.options import AsJson, number_in
from dspy_cachectl.cli.output import print_json
from dspy_cachectl.cli.predictions import PredictionsFolder
from dspy_cachectl.errors import CachectlError, MissingExtraError

_CANNOT_TELL = 2


def pass_or_fail(
    baseline: Annotated[
        str,
        typer.Argument(
            metavar="BASELINE",
            help="A saved report, or a snapshot of kept predictions, by its path or the beginning of its name.",
        ),
    ],
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="What is to pass, likewise.")],
    *,
    not_worse_by: Annotated[
        float,
        typer.Option(
            "--not-worse-by",
            metavar="D",
            parser=number_in,
            help="By how much it may be worse, in units of the score, above 0.",
        ),
    ],
    level: Annotated[
        float, typer.Option("--level", metavar="P", parser=number_in, help="The level of the interval.")
    ] = 0.95,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="By which metric: its name, or the beginning of its hash. Default: the last one of what is kept, the "
            "first of a saved report.",
        ),
    ] = None,
    slices: Annotated[
        list[str] | None,
        typer.Option(
            "--slices",
            metavar="FIELD",
            help="Of kept predictions, also those of a saved report, a field by which questions are looked at apart. "
            "May be given several times.",
        ),
    ] = None,
    predictions: PredictionsFolder,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print it as Markdown, for a pull request or a job's summary.")
    ] = False,
    undecided_passes: Annotated[
        bool, typer.Option("--undecided-passes", help="Exit with 0 where it cannot be told of two that were read.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell whether a candidate is surely not worse than the baseline by more than a margin. Nothing is asked.

    Exit codes: 0 it passed, 1 it failed: it is worse; 2 it cannot be told, also where a file cannot be read.
    """
    from dspy_cachectl.gating.gate import Outcome, gate

    try:
        if find_spec("scipy") is None:
            raise MissingExtraError("gate", extra="stats")
        reports = manage.kept_reports.reports_in([baseline, candidate], predictions, metric=metric, slices=slices or ())
        found = gate(*reports, not_worse_by=not_worse_by, level=level)
    except CachectlError as error:
        typer.echo(f"dspy-cachectl: {harmless_lines(str(error))}", err=True)
        raise typer.Exit(_CANNOT_TELL) from error
    if as_json:
        print_json(found.as_dict())
    else:
        print(found.as_markdown() if markdown else found.details())
    is_let_pass = undecided_passes and found.outcome is Outcome.CANNOT_TELL
    raise typer.Exit(0 if is_let_pass else found.exit_code)
