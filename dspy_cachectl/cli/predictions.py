"""`dspy-cachectl predictions`: the kept predictions of evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from dspy_cachectl import manage
from dspy_cachectl.cli.options import AsJson, Consent, DryRun, Yes, age_in, count_in, library_in
from dspy_cachectl.cli.output import aside_of, print_fact, print_json, print_line, print_table
from dspy_cachectl.config import settings
from dspy_cachectl.reports.texts import MISSING, age, as_json, cut, plural, short, size, when

if TYPE_CHECKING:
    from dspy_cachectl.predictions.rows import PredictionRow
    from dspy_cachectl.predictions.snapshot import SnapshotInfo

_LONGEST = 200

PredictionsFolder: TypeAlias = Annotated[
    str,
    typer.Option(
        "--predictions",
        "--library",
        metavar="FOLDER",
        default_factory=lambda: settings().predictions_place,
        show_default=False,
        parser=lambda text: library_in(text) or settings().predictions_place,
        help="Where the kept predictions are: a folder, or s3://bucket/prefix. Default: as the configuration says (see "
        "`config show`).",
    ),
]
Snapshot: TypeAlias = Annotated[
    str, typer.Argument(metavar="SNAPSHOT", help="The snapshot: the beginning of its name, of its hash or of its run.")
]

app = typer.Typer(
    name="predictions",
    short_help="See, compare and remove kept predictions.",
    help="See, compare, export and remove the predictions that evaluations keep.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("ls")
def list_snapshots(*, predictions: PredictionsFolder, as_json: AsJson = False) -> None:
    """List the snapshots, the newest first."""
    found = manage.snapshots.snapshots_in(predictions)
    if as_json:
        print_json([_data(info) for info in found])
    else:
        print_table(
            ("id", "snapshot", "program", "model", "data", "rows", "age", "size", "score"),
            (
                (
                    manage.snapshots.short_name(info),
                    info.path.name,
                    info.program,
                    info.key.model.model,
                    info.key.dataset[:8],
                    f"{info.rows:,}" + ("" if info.is_complete else " (unfinished)"),
                    age(info.age),
                    size(info.bytes),
                    _scores(info),
                )
                for info in found
            ),
            right=("age", "size"),
            whole=("id", "snapshot", "score"),
            names=("program", "model"),
            spare=("snapshot", "size", "program", "data"),
            nothing=manage.snapshots.nothing_in(predictions),
        )


@app.command("show", short_help="Show a snapshot and its first answers.")
def show_snapshot(
    snapshot: Snapshot,
    *,
    predictions: PredictionsFolder,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", parser=count_in, help="How many predictions to show.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """Show a snapshot: what its predictions depend on, and the first of them."""
    info = manage.snapshots.find(predictions, snapshot)
    rows = list(manage.snapshots.read_rows(info.path))
    if as_json:
        print_json({**_data(info), "metrics": manage.snapshots.metrics_of(info.path), "predictions": rows[:limit]})
        return
    for name, value in _facts(info).items():
        print_fact(name, value, width=13)
    shown, said = rows[:limit], [_feedback(row) for row in rows[:limit]]
    columns = ("question", "repeat", "prediction", "score", *(["feedback"] if any(said) else []))
    cells = ((*_row_cells(row), text)[: len(columns)] for row, text in zip(shown, said, strict=True))
    print_table(columns, cells, right=("repeat", "score"), spare=("repeat",))
    if len(rows) > limit:
        print_line(f"... and {len(rows) - limit:,} more")


@app.command("diff", short_help="Show what differs between two snapshots.")
def compare_snapshots(
    before: Snapshot, after: Snapshot, *, predictions: PredictionsFolder, as_json: AsJson = False
) -> None:
    """Show what differs between two snapshots: what they depend on, and the questions answered or scored otherwise."""
    found = manage.snapshots.diff(manage.snapshots.find(predictions, before), manage.snapshots.find(predictions, after))
    if as_json:
        print_json(found)
        return
    for line in found.identity or ["They depend on the same."]:
        print_line(line)
    print_line(
        f"{plural(found.same, 'prediction')} alike, {len(found.changed):,} changed; "
        f"{found.only_before:,} only in the first, {found.only_after:,} only in the second"
    )
    if found.changed:
        titles = ("question", "repeat", "before", "after", "score")
        print_table(titles, map(_changed_cells, found.changed), right=("repeat",), spare=("repeat",))


@app.command("clear")
def clear_snapshots(
    names: Annotated[list[str] | None, typer.Argument(metavar="SNAPSHOT...", help="Which snapshots.")] = None,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="All snapshots, also damaged ones, and what killed evaluations had finished.")
    ] = False,
    older_than: Annotated[
        float | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            parser=age_in,
            help="Those with an answer drawn longer ago: 90s, 15m, 24h, 7d, 2w.",
        ),
    ] = None,
    predictions: PredictionsFolder,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove snapshots. What a living evaluation uses stays."""
    from dspy_cachectl.predictions.library import Library

    if (bool(names), everything, older_than is not None).count(True) != 1:
        raise typer.BadParameter("say one of these: snapshots, --older-than or --all", param_hint="SNAPSHOT")
    consent, library = Consent(yes, dry_run, as_json), Library(predictions)
    chosen = None
    if names:
        chosen = manage.snapshots.named({manage.snapshots.find(predictions, name).path.name for name in names})
    elif older_than is not None:
        chosen = manage.snapshots.older_than(older_than)
    decided = manage.snapshots.plan(library, chosen)
    consent.check(decided)
    is_there = library.shown != str(library.root) or library.root.is_dir()
    consent.say(library.shown if is_there else manage.snapshots.nothing_in(library.root))
    for line in decided.lines():
        consent.say(f"To be removed: {line}")
    removed: list[Path] = []
    if not decided:
        consent.say("Nothing is to be removed.")
    elif consent.given(f"Remove {decided}?"):
        removed = decided.remove()
        consent.say(f"Removed {plural(len(removed), 'file')} of predictions.")
    if as_json:
        print_json(
            {
                "folder": library.shown,
                "snapshots": [path.name for path in decided.files],
                "unfinished": decided.unfinished,
                "removed": [path.name for path in removed],
                "dry_run": dry_run,
            }
        )


@app.command("export", short_help="Write a snapshot as a table.")
def export_snapshot(
    snapshot: Snapshot,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to: a name in .csv or .parquet, or - for standard output.")
    ],
    *,
    predictions: PredictionsFolder,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write the predictions of a snapshot as a table."""
    rows = list(manage.snapshots.read_rows(manage.snapshots.find(predictions, snapshot).path))
    manage.tables.export(rows, file, force=force)
    with aside_of(file):
        print_line(f"Wrote {plural(len(rows), 'prediction')} to {file}.")


def _data(info: SnapshotInfo) -> dict[str, Any]:
    facts = {name: value for name, value in vars(info).items() if name not in {"session", "is_alive"}}
    return {**facts, "scores": manage.snapshots.scores_of(info)}


def _facts(info: SnapshotInfo) -> dict[str, str]:
    """Return what identifies a snapshot, and what is in it, for people."""
    written = {name: _short(info.metadata.get(name, MISSING)) for name in ("questions", "repeats", "phase")}
    return {
        "name": info.path.name,
        "program": info.program,
        "program hash": short(info.key.program.hash),
        "model": info.key.model.model,
        "dataset": short(info.key.dataset),
        "questions": written["questions"],
        "repeats": written["repeats"],
        "complete": "yes" if info.is_complete else "no",
        "run id": info.run_id,
        "phase": written["phase"],
        "size": size(info.bytes),
        "rows": f"{info.rows:,}",
        "age": age(info.age),
        "kept": when(info.saved),
        "scores": _scores(info) or MISSING,
    }


def _scores(info: SnapshotInfo) -> str:
    return ", ".join(f"{name} {_number(score)}" for name, score in manage.snapshots.scores_of(info).items())


def _row_cells(row: PredictionRow) -> tuple[str, ...]:
    said = f"failed: {_short(vars(row.error))}" if row.error is not None else ""
    return (
        _short(dict(row.inputs)),
        str(row.repeat + 1),
        _short(dict(row.output.fields)) if row.output is not None else said,
        ", ".join(_number(score.score) for score in row.scores.values()),
    )


def _feedback(row: PredictionRow) -> str:
    return cut(" · ".join(score.feedback for score in row.scores.values() if score.feedback), _LONGEST)


def _changed_cells(item: manage.snapshots.Changed) -> tuple[str, ...]:
    scores = ", ".join(f"{_number(old)} -> {_number(new)}" for old, new in item.scores.values())
    return _short(item.question), str(item.repeat + 1), _short(item.before), _short(item.after), scores


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _short(value: Any) -> str:
    value = as_json(value)
    text = ", ".join(f"{name}={item}" for name, item in value.items()) if isinstance(value, dict) else str(value)
    return cut(text, _LONGEST)
