"""`python -m benchmarks`: measures the rows that are picked, and says which bars are met."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import plots, results
from benchmarks.figures import Figure, from_json, pooled
from benchmarks.rows import Row, all_rows, picked

PEERS_PYTHON = results.ROOT / ".venv-bench/bin/python"
"""Where the peers are installed; without it only those are measured that are installed anyway."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write it with all figures. Return 1 where a row failed."""
    options = _parser().parse_args(arguments)
    if options.list:
        _list()
        return 0
    rows = picked(options.only, long_ones=options.all)
    facts, found, failed, began = results.machine(), [], [], time.perf_counter()
    for run in range(options.runs):
        for theme, names in themes_of(rows):
            print(f"run {run + 1} of {options.runs}: {theme}", file=sys.stderr, flush=True)
            found += measured(theme, names, options.rounds, failed)
    figures = list(by_name(found).values())
    took = {"runs": options.runs, "rounds": options.rounds, "minutes": round((time.perf_counter() - began) / 60, 1)}
    _write(options.output, figures, rows, {**facts, **took})
    _print(figures)
    if results.is_busy(facts):
        print(f"rough: the machine had a load of {facts['load']} before; measure where it is idle", file=sys.stderr)
    for failure in failed:
        print(f"failed: {failure}", file=sys.stderr)
    return int(bool(failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="ROW", help="rows, themes, or what rows begin with: lm-*"
    )
    parser.add_argument("--rounds", type=int, default=15, help="how often each is timed in turn (15)")
    parser.add_argument("--runs", type=int, default=1, help="how often all of that is done, in new processes (1)")
    parser.add_argument("--all", action="store_true", help="the long rows, too")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench"), help="where results go (outputs/bench)")
    return parser


def themes_of(rows: Iterable[Row]) -> Iterator[tuple[str, list[str]]]:
    """Yield each theme with the names of its rows."""
    for theme, of_theme in itertools.groupby(rows, key=lambda row: row.theme):
        yield theme, [row.name for row in of_theme]


def measured(
    theme: str, names: Sequence[str], rounds: int, failed: list[str], *, root: Path = results.ROOT
) -> list[Figure]:
    """Return the figures of rows of one theme, measured in a process of its own.

    Args:
        theme: The theme.
        names: The rows.
        rounds: How often each is timed.
        failed: Takes what is to be said of rows that fail.
        root: The checkout that is measured.
    """
    lines = list(_lines(theme, names, rounds, root))
    failed += [f"{line['row']}: {line['failed']}" for line in lines if "failed" in line]
    return [from_json(line) for line in lines if "failed" not in line]


def _lines(theme: str, names: Sequence[str], rounds: int, root: Path) -> Iterator[dict[str, Any]]:
    python = PEERS_PYTHON if theme == "peers" and PEERS_PYTHON.exists() else Path(sys.executable)
    command = [str(python), "-m", "benchmarks.child", str(rounds), *names]
    env = {**os.environ, "PYTHONPATH": str(root)}  # of the same checkout are the commands that a row starts
    with subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            yield json.loads(line)
    if child.returncode:
        yield {"row": names[0], "failed": f"its process ended with {child.returncode}"}


def by_name(found: Sequence[Figure]) -> dict[str, Figure]:
    """Return one figure of each name, of all the runs that it was measured in."""
    return {
        name: pooled([one for one in found if one.name == name]) for name in dict.fromkeys(one.name for one in found)
    }


def _write(folder: Path, figures: list[Figure], rows: list[Row], facts: dict[str, object]) -> None:
    results.write(folder / "bench.json", figures, **facts)
    says = {row.name: row.says for row in rows}
    (folder / "bench.md").write_text(results.markdown(figures, says, facts), encoding="utf-8")
    if find_spec("matplotlib") is not None:
        plots.plot(folder, figures)


def _print(figures: list[Figure]) -> None:
    table = Table(*results.COLUMNS, box=None, pad_edge=False)
    for figure in figures:
        table.add_row(*results.cells(figure))
    Console(soft_wrap=True).print(table)


def _list() -> None:
    for theme, rows in itertools.groupby(all_rows().values(), key=lambda row: row.theme):
        print(f"{theme}:")
        for row in rows:
            print(f"  {row.name:<18} {row.says}{' (long)' if row.is_long else ''}")


if __name__ == "__main__":
    sys.exit(main())
