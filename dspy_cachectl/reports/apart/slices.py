"""Slices of the questions: each is a report of its own, of the answers that there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from dspy_cachectl.reports.measurement import Measurement
from dspy_cachectl.reports.results import QuestionResult
from dspy_cachectl.reports.texts import ends_text, score_text
from dspy_cachectl.showing.sheets import Cell, Giving, Part

M = TypeVar("M", bound=Measurement)

MOST_BRIEFLY = 8
"""How many slices are shown on one screen."""
COLUMNS = ("slice", "score", "interval", "questions", "failed")
GIVE = Giving(
    right=("questions", "failed", "p (Holm)"),
    whole=("score", "interval", "difference"),
    names=("slice",),
    spare=("failed", "p (Holm)"),
)
"""How a table of slices gives way."""


def slices_of(report: M, names: Mapping[str, Sequence[str]] | None = None) -> dict[str, M]:
    """Return the slices of a report by name, in the order of their first questions. They have none themselves.

    Args:
        report: The report.
        names: The slices that a question is in, by what identifies it; None for what the report itself says.
    """
    members: dict[str, list[QuestionResult]] = {}
    for question in report.questions:
        for name in question.slices if names is None else names.get(question.question, ()):
            members.setdefault(name, []).append(replace(question, slices=()))
    # What was bought was bought for all of them, and no slice can tell which part was its own.
    made = replace(report.provenance, counters={})
    return {
        name: replace(report, name=f"{report.name}, {name}", questions=tuple(questions), provenance=made)
        for name, questions in members.items()
    }


def paired_slices(baseline: Measurement, candidate: Measurement) -> Iterator[tuple[str, Measurement, Measurement]]:
    """Yield the slices of the questions that two reports have in common: the name, and the part of each.

    The candidate says which question is in which; where it has no slices, the baseline.
    """
    common = {question.question for question in baseline.questions}
    told = candidate if any(question.slices for question in candidate.questions) else baseline
    names = {one.question: one.slices for one in told.questions}
    if not any(names.values()):
        return
    before = slices_of(baseline, names)
    for name, after in slices_of(candidate, {one: names[one] for one in names if one in common}).items():
        if name in before:
            yield name, before[name], after


def slices_part(report: Measurement, *, briefly: bool = False) -> Part:
    """Return the slices of a report as a table, the lowest score first.

    Args:
        report: The report.
        briefly: Whether it has to fit on a screen.
    """
    found = sorted(slices_of(report).items(), key=lambda one: one[1].score)
    return table_of(
        "Slices, the lowest first (each interval by itself)",
        COLUMNS,
        [
            (
                Cell(name),
                Cell(score_text(one.score, one.standard_error)),
                Cell(ends_text(one.interval, one.standard_error)),
                Cell(f"{one.n:,}"),
                Cell(f"{one.failures:,}"),
            )
            for name, one in found
        ],
        briefly=briefly,
    )


def differences_part(rows: Iterable[tuple[float, str, int, tuple[Cell, ...]]], *, briefly: bool = False) -> Part:
    """Return the differences of two reports by slice as a table, the worst first.

    Args:
        rows: Of each slice the difference, the name, the number of questions, and its cells (see `difference_cells`).
        briefly: Whether it has to fit on a screen.
    """
    return table_of(
        "Slices, the worst first (verdicts hold together)",
        ("slice", "questions", "difference", "interval", "p (Holm)", "verdict"),
        [(Cell(name), Cell(f"{n:,}"), *cells[:2], cells[3], cells[5]) for _, name, n, cells in sorted(rows)],
        briefly=briefly,
    )


def table_of(title: str, columns: tuple[str, ...], rows: Sequence[tuple[Cell, ...]], *, briefly: bool) -> Part:
    """Return rows as a table; briefly, as many as fit on a screen, and how many there are beside them."""
    if briefly and len(rows) > MOST_BRIEFLY:
        left = Cell(f"and {len(rows) - MOST_BRIEFLY:,} more")
        rows = [*rows[:MOST_BRIEFLY], (left, *[Cell("")] * (len(columns) - 1))]
    return Part(title, tuple(rows), header=columns, giving=GIVE)
