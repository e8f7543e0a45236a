"""`dspy-cachectl report`, the page of a report or of two that are compared; and `merge`, one report of shards."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dspy_cachectl import manage
from dspy_cachectl.boundary.writing import check_new, write_output_of_command
from dspy_cachectl.cli.options import AsJson, StoreOption
from dspy_cachectl.cli.output import aside_of, print_json, print_line, print_part, print_table
from dspy_cachectl.cli.predictions import PredictionsFolder
from dspy_cachectl.errors import MissingExtraError
from dspy_cachectl.reports.texts import number

if TYPE_CHECKING:
    from dspy_cachectl.reports.apart.changes import ChangedQuestion


def write_page(
    context: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="A saved report, or a snapshot of kept predictions, by its path or the beginning of its name. Two are "
            "compared, the baseline first.",
        ),
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PAGE", help="The page to write. Standard output is -.")
    ] = Path("report.html"),
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
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a report as one page for the browser: scores, every answer, and what it is made of. Nothing is asked.

    It needs no network and loads nothing. What the LM was told and said is read from the store, as far as it is there.
    """
    if len(files) > 2:
        raise typer.BadParameter("one report has a page, or two that are compared", param_hint="FILE")
    if find_spec("scipy") is None:
        raise MissingExtraError("report", extra="stats")
    check_new(output, what="the page", force=force, inputs=files)
    from dspy_cachectl.page.document import document

    reports = manage.kept_reports.reports_in(files, predictions, metric=metric, slices=slices or ())
    shown = reports[0] if len(reports) == 1 else reports[0].compare(reports[1])
    option: StoreOption = context.obj
    page = shown.page([] if option.is_in_memory() else [option.reader()])
    write_output_of_command(output, document(page), what="the page")
    with aside_of(output):
        print_line(f"Wrote {page.title!r} to {output}.")


def show_changed(
    context: typer.Context,
    baseline: Annotated[
        str,
        typer.Argument(
            metavar="BASELINE",
            help="A saved report, or a snapshot of kept predictions, by its path or the beginning of its name.",
        ),
    ],
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="What is compared with it, likewise.")],
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="A question, or how what identifies it begins.")
    ] = None,
    *,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="By which metric: its name, or the beginning of its hash. Default: the last one of what is kept.",
        ),
    ] = None,
    predictions: PredictionsFolder,
    as_json: AsJson = False,
) -> None:
    """List the questions that a candidate won or lost, or show one: what both were told and answered. Nothing is asked.

    What the LM was told and said is read from the store, as far as it is there.
    """
    if find_spec("scipy") is None:
        raise MissingExtraError("changed", extra="stats")
    reports = manage.kept_reports.reports_in([baseline, candidate], predictions, metric=metric)
    compared = reports[0].compare(reports[1])
    if question is None:
        _list_changed(compared.changed(), as_json=as_json)
        return
    from dspy_cachectl.page.transcript import transcript

    option: StoreOption = context.obj
    page = compared.of_question(question).page([] if option.is_in_memory() else [option.reader()])
    said = list(transcript(page))
    if as_json:
        print_json([{"title": title, "text": text} for title, text in said])
        return
    for title, text in said:
        print_part(title, text, "bold cyan")


def _list_changed(changed: Sequence[ChangedQuestion], *, as_json: bool) -> None:
    if as_json:
        print_json(changed)
        return
    print_table(
        ("question", "begins with", "baseline", "candidate", "change"),
        (
            (
                one.question,
                one.preview,
                number(one.baseline, 2),
                number(one.candidate, 2),
                f"{'won' if one.difference > 0 else 'lost'} {number(one.difference, 2, sign=True)}",
            )
            for one in changed
        ),
        right=("baseline", "candidate", "change"),
        whole=("question",),
        nothing="No question changed sides.",
    )


def merge_shards(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="The saved reports of all shards of one evaluation.")
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="REPORT", help="The report to write. Standard output is -.")
    ] = Path("report.json"),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Make one report of those of an evaluation's shards, as if it were made at once. Nothing is asked.

    A shard is what `evaluate(..., shard=(i, n), run_id=...)` makes, as a task of a job array; its report is written by
    `report.save(...)`.
    """
    if find_spec("scipy") is None:
        raise MissingExtraError("merge", extra="stats")
    check_new(output, what="the report", force=force, inputs=files)
    from dspy_cachectl.reports.report import EvalReport

    merged = EvalReport.merge(map(EvalReport.load, files))
    write_output_of_command(output, merged.as_json(), what="the report")
    with aside_of(output):
        print(merged)
