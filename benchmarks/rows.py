"""The rows that can be measured: each a function that yields figures, in a file of its theme."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.figures import Figure

if TYPE_CHECKING:
    from benchmarks.scene import Scene

THEMES = (
    "hits",
    "puts",
    "threads",
    "bought",
    "evaluations",
    "awaited",
    "scores",
    "stores",
    "writers",
    "faults",
    "starts",
    "floors",
    "peers",
    "pages",
)
"""The files of rows, in the order in which they are measured."""

Measure = Callable[["Scene"], Iterator[Figure]]


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: What it is called on the command line, and in its figures.
        theme: The file that it is in. Rows of one theme are measured in one process.
        says: What is compared with what.
        measure: Measures it.
        is_long: It is measured by `make bench-all` only, or where it is named.
    """

    name: str
    theme: str
    says: str
    measure: Measure
    is_long: bool = False


ROWS: dict[str, Row] = {}


def row(name: str, *, is_long: bool = False) -> Callable[[Measure], Measure]:
    """Make a function a row. The first line of its docstring says what is compared with what."""

    def register(measure: Measure) -> Measure:
        says = (measure.__doc__ or "").strip().splitlines()[0]
        ROWS[name] = Row(name, measure.__module__.rpartition(".")[2], says, measure, is_long)
        return measure

    return register


def all_rows() -> dict[str, Row]:
    """Return every row by name, in order."""
    for theme in THEMES:
        importlib.import_module(f"benchmarks.{theme}")
    return ROWS


def picked(names: list[str], *, long_ones: bool) -> list[Row]:
    """Return the rows of which a name is a row's, a theme's, or begins a row's; all where there is none.

    Raises:
        SystemExit: If a name is of no row.
    """
    rows = all_rows()
    for name in names:
        if not any(_is_meant(name, one) for one in rows.values()):
            raise SystemExit(f"no row {name!r}; `python -m benchmarks --list` names them")
    if names:
        return [one for one in rows.values() if any(_is_meant(name, one) for name in names)]
    return [one for one in rows.values() if long_ones or not one.is_long]


def _is_meant(name: str, one: Row) -> bool:
    return name in {one.theme, one.name} or (name.endswith("*") and one.name.startswith(name[:-1]))
