"""`dspy-cachectl predictions rank`: all that is kept of one data set, compared without a request."""

from __future__ import annotations

from typing import Annotated

import typer

from dspy_cachectl import manage
from dspy_cachectl.cli.options import AsJson, number_in
from dspy_cachectl.cli.output import print_json
from dspy_cachectl.cli.predictions import PredictionsFolder


def rank_snapshots(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="The data set: the beginning of its hash, or a snapshot of it. Only where there are several.",
        ),
    ] = None,
    *,
    metric: Annotated[
        str | None, typer.Option("--metric", metavar="NAME", help="The metric: its name, or the beginning of its hash.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="SNAPSHOT", help="What all are compared with. Default: the best.")
    ] = None,
    smallest_difference: Annotated[
        float | None,
        typer.Option(
            "--smallest-difference",
            metavar="D",
            parser=number_in,
            help="The smallest difference that matters, in units of the score. Default: a twentieth of the scale.",
        ),
    ] = None,
    predictions: PredictionsFolder,
    as_json: AsJson = False,
) -> None:
    """Rank what is kept of a data set: score, interval, cost and verdict of each model and program. Nothing is asked.

    Each is compared with the best, question by question, and all verdicts hold together. What was scored by different
    metrics is not compared: there is a table for each. Of several runs of the same the newest finished one counts.
    """
    found = manage.ranking.rank(
        predictions, data=data, metric=metric, against=against, smallest_difference=smallest_difference
    )
    if as_json:
        print_json([one.as_dict() for one in found])
    else:
        # All of it: nobody in a shell can ask for the rest.
        print("\n\n".join(one.ranking.details() for one in found))
