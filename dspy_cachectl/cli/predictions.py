"""`dspy-cachectl predictions`: the kept predictions of evaluations."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from dspy_cachectl.cli.consent import DryRun, Yes, agreed, must_be_able_to_ask
from dspy_cachectl.cli.options import AsJson
from dspy_cachectl.cli.output import age_text, console, plain, print_json, print_table
from dspy_cachectl.cli.removing import counted

if TYPE_CHECKING:
    from dspy_cachectl.manage.snapshots import Changed

_DEFAULT = "outputs/cache/predictions"
_LONGEST = 200

Library: TypeAlias = Annotated[
    Path, typer.Option("--library", metavar="FOLDER", help="The folder of the kept predictions.")
]
Snapshot: TypeAlias = Annotated[
    str, typer.Argument(metavar="SNAPSHOT", help="The snapshot: the beginning of its name, of its hash or of its run.")
]

app = typer.Typer(
    name="predictions",
    help="See, compare, export and remove the predictions that evaluations keep.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("ls")
def list_snapshots(*, library: Library = Path(_DEFAULT), as_json: AsJson = False) -> None:
    """List the snapshots, the newest first."""
    from rich import filesize

    from dspy_cachectl.manage import snapshots

    found = [snapshots.kept(info) for info in snapshots.infos(library)]
    if as_json:
        print_json([asdict(item) for item in found])
    elif not found:
        console().print("No predictions are kept.")
    else:
        print_table(
            ("snapshot", "program", "model", "data", "rows", "age", "size", "score"),
            (
                (
                    item.name,
                    item.program,
                    item.model,
                    item.dataset[:12],
                    f"{item.rows:,}" + ("" if item.is_complete else " (unfinished)"),
                    age_text(item.age),
                    filesize.decimal(item.bytes),
                    ", ".join(f"{name} {score:.4g}" for name, score in item.scores.items()) or "-",
                )
                for item in found
            ),
        )


@app.command("show")
def show_snapshot(
    snapshot: Snapshot,
    *,
    library: Library = Path(_DEFAULT),
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=0, help="How many predictions to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show a snapshot: what its predictions depend on, and the first of them."""
    from dspy_cachectl.manage import snapshots

    info = snapshots.find(library, snapshot)
    rows = snapshots.read_rows(info)
    if as_json:
        data = {
            **asdict(snapshots.kept(info)),
            "metadata": snapshots.jsonable(info.metadata),
            "metrics": snapshots.jsonable(snapshots.metrics_of(info.path)),
            "predictions": [snapshots.as_data(row) for row in rows[:limit]],
        }
        print_json(data)
        return
    item = snapshots.kept(info)
    for name, value in asdict(item).items():
        _print_line(f"{name:<13} {_short(value)}")
    print_table(
        ("question", "repeat", "prediction", "score"),
        (
            (
                _short(dict(row.inputs)),
                str(row.repeat),
                _short(dict(row.output.fields)) if row.output is not None else f"failed: {_short(vars(row.error))}",
                ", ".join("-" if score.score is None else f"{score.score:.4g}" for score in row.scores.values()) or "-",
            )
            for row in rows[:limit]
        ),
    )
    if len(rows) > limit:
        _print_line(f"... and {len(rows) - limit:,} more")


@app.command("diff")
def compare_snapshots(
    before: Snapshot, after: Snapshot, *, library: Library = Path(_DEFAULT), as_json: AsJson = False
) -> None:
    """Show what differs between two snapshots: what they depend on, and the questions answered or scored otherwise."""
    from dspy_cachectl.manage import snapshots

    found = snapshots.diff(snapshots.find(library, before), snapshots.find(library, after))
    if as_json:
        print_json(snapshots.jsonable(asdict(found)))
        return
    for line in found.identity or ["They depend on the same."]:
        _print_line(line)
    _print_line(
        f"{counted(found.same, 'prediction', 'predictions')} alike, {len(found.changed):,} changed; "
        f"{found.only_before:,} only in the first, {found.only_after:,} only in the second"
    )
    if found.changed:
        print_table(("question", "repeat", "before", "after", "score"), map(_changed_cells, found.changed))


@app.command("clear")
def clear_snapshots(
    names: Annotated[list[str] | None, typer.Argument(metavar="SNAPSHOT...", help="Which snapshots.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All snapshots.")] = False,
    library: Library = Path(_DEFAULT),
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove snapshots. What a living evaluation uses stays."""
    from dspy_cachectl.manage import snapshots

    if bool(names) == everything:
        raise typer.BadParameter("name snapshots, or say --all", param_hint="SNAPSHOT")
    must_be_able_to_ask(yes=yes, dry_run=dry_run)
    chosen = snapshots.infos(library) if everything else [snapshots.find(library, name) for name in names or ()]
    wanted = sorted({info.path.name for info in chosen})
    if not as_json:
        for name in wanted or ["Nothing is to be removed."]:
            _print_line(f"To be removed: {name}" if wanted else name)
    removed: list[Path] = []
    if wanted and not dry_run:
        if not agreed(f"Remove {counted(len(wanted), 'snapshot', 'snapshots')}?", yes=yes):
            raise typer.Exit(1)
        removed = snapshots.clear_snapshots(library, wanted)
        if not as_json:
            print(f"Removed {counted(len(removed), 'snapshot', 'snapshots')}.")
    if as_json:
        print_json({"snapshots": wanted, "removed": [path.name for path in removed], "dry_run": dry_run})


@app.command("export")
def export_snapshot(
    snapshot: Snapshot,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to: a name that ends in .csv or .parquet.")],
    *,
    library: Library = Path(_DEFAULT),
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Leave CSV cells as they are that a spreadsheet would take for a formula."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write the predictions of a snapshot as a table."""
    from dspy_cachectl.manage import snapshots, tables

    rows = snapshots.read_rows(snapshots.find(library, snapshot))
    tables.export(rows, file, raw=raw, force=force)
    print(f"Wrote {counted(len(rows), 'prediction', 'predictions')} to {plain(str(file))}.")


def _changed_cells(item: Changed) -> tuple[str, ...]:
    scores = ", ".join(f"{_number(old)} -> {_number(new)}" for old, new in item.scores.values())
    return _short(item.question), str(item.repeat), _short(item.before), _short(item.after), scores or "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _short(value: Any) -> str:
    text = ", ".join(f"{name}={item}" for name, item in value.items()) if isinstance(value, dict) else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _print_line(text: str) -> None:
    from rich.text import Text

    console().print(Text(plain(text)), soft_wrap=True)
