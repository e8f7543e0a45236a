"""What the demo shows: a table, and what can be read from it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dspy_cachectl.demo.act_results import PLOT, REPEATS

if TYPE_CHECKING:
    from dspy_cachectl.demo.act_results import ActResult, DemoResult

_UNWATCHED_WIDTH = 110


def say_beginning(title: str, at: int, acts: int) -> None:
    """Say which act begins, where nobody sees a bar: in a pipe, or a log."""
    if not sys.stderr.isatty():
        Console(file=sys.stderr, highlight=False).print(f"{at} of {acts}: {title}", markup=False, soft_wrap=True)


def show(result: DemoResult) -> None:
    """Print the table and its reading."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _UNWATCHED_WIDTH)
    console.print(_table(result))
    console.print()
    for paragraph in reading(result):
        # Not as markup: "dspy-cachectl[mlflow]" holds square brackets.
        console.print(f"• {paragraph}", markup=False)


def _table(result: DemoResult) -> Table:
    table = Table(
        title=Text(f"{result.model}: is a review positive or negative? {result.examples} reviews"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("")
    for name in ("requests", "served", "tokens", "seconds", "score %", "unreadable"):
        table.add_column(name, justify="right")
    for row in result.rows:
        table.add_row(
            row.title,
            str(row.requests),
            "-" if row.served is None else str(row.served),
            f"{row.tokens:,}",
            f"{row.seconds:.1f}",
            _score(row),
            str(row.unreadable) if row.labels else "-",
        )
    return table


def reading(result: DemoResult) -> list[str]:
    """Return what the table shows, one sentence or a few for each thing."""
    paragraphs = [_compiling(result), _measuring(result), _plain(result), _gain(result), _resuming(result)]
    return [*paragraphs, _tracking(result), _comparison(result), _counting(result)]


def _compiling(result: DemoResult) -> str:
    first, again = result.row("compile"), result.row("compile-again")
    return (
        f"Compiling took {first.requests} requests; compiling again took {again.requests}, "
        f"and {again.served} answers were served from the store."
    )


def _measuring(result: DemoResult) -> str:
    runs = [result.row(key) for key in ("zero-shot", "eval-1", "eval-2")]
    scores = ", ".join(_score(run) for run in runs)
    calls = sum(run.lent for run in runs)
    lent = f" The phase lent the temperature 1.0 to {calls} calls that had asked for 0 or for none." if calls else ""
    return (
        f"Three fresh evaluations of one program scored {scores}: each asked the model for every answer, and "
        f"{runs[1].differing(runs[2])} of {result.examples} labels differ between the last two. "
        f"That spread is what a single score hides.{lent}"
    )


def _plain(result: DemoResult) -> str:
    first, second = result.row("plain-1"), result.row("plain-2")
    return (
        f"Plain DSPy, asked twice at the same temperature, made {first.requests} requests and then "
        f"{second.requests}, and reported {_score(first)} and {_score(second)}: the second number is the first "
        "one's answers read back from the cache, not a second measurement."
    )


def _gain(result: DemoResult) -> str:
    before, after = result.row("zero-shot"), result.row("compiled")
    said = (
        f"Compiled, the program scored {_score(after)}, zero-shot {_score(before)}. The test set is tiny: one review "
        f"is {100 / result.examples:.1f} points, so read no more into it than the direction."
    )
    if before.unreadable > after.unreadable:
        said += (
            f" Part of any gain is format repair: {before.unreadable} zero-shot answers were no label at all, "
            f"{after.unreadable} of the compiled program's were."
        )
    else:
        said += " Demonstrations also teach the format of an answer, not only the task."
    return said


def _resuming(result: DemoResult) -> str:
    killed, resumed = result.row("killed"), result.row("resumed")
    lost = killed.requests - (resumed.served or 0)
    said = (
        f"An evaluation was killed (SIGKILL) after {killed.requests} requests. Run again under the same run id, "
        f"{resumed.served} answers were served and {resumed.requests} bought"
    )
    return f"{said}: only the {lost} in the air were paid twice." if lost else f"{said}: nothing was paid twice."


def _tracking(result: DemoResult) -> str:
    mlflow = result.mlflow
    if isinstance(mlflow, str):
        return f"Nothing was logged to MLflow: {mlflow}."
    if mlflow.status != "logged":
        return f"Nothing was logged to MLflow: {mlflow.status} ({mlflow.reason})."
    said = "The compiled run was logged to MLflow, from the store, with no request made for it"
    if result.output is None:
        return f"{said}."
    address = f"sqlite:///{(result.output / 'mlflow.db').as_posix()}"
    return f"{said}; look at it with: mlflow ui --backend-store-uri {address}."


def _comparison(result: DemoResult) -> str:
    compared = result.comparison
    if isinstance(compared, str):
        return f"No comparison with error bars: {compared}."
    found, interval = compared.result, compared.interval
    said = (
        f"With {REPEATS} answers to each review, paired review by review: compiled {found.candidate_mean:.3f}, "
        f"zero-shot {found.baseline_mean:.3f}, difference {compared.difference:+.3f}, "
        f"95% interval {interval.low:+.3f} to {interval.high:+.3f}. Verdict: {compared.verdict_text}."
    )
    plot = None if result.output is None else result.output / PLOT
    said = f"{said} The picture is {plot}." if plot is not None and plot.exists() else said
    settled = result.settled
    if settled is None:
        return said
    return (
        f"{said} Asked no further than until it is settled, settle() says {settled.verdict_text} after "
        f"{settled.answers} of these {settled.answers + settled.saved} answers, at look {len(settled.looks)}, "
        "with 5% error over all looks."
    )


def _counting(result: DemoResult) -> str:
    said = f"{result.requests} requests in {result.seconds:.0f} s, counted in front of the model's server. "
    if not result.disagreements:
        return f"{said}The package's own stats agree in every row that has them."
    rows = "; ".join(f"{row.title}: {row.requests} counted, {row.counted} in the stats" for row in result.disagreements)
    return f"{said}The package's own stats differ ({rows}): retries of failed requests are not in them."


def _score(row: ActResult) -> str:
    return "-" if row.score is None else f"{row.score:.1f}"
