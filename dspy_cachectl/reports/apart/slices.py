"""Slices of the questions: each is a report of its own, of the answers that there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from dspy_cachectl.reports.measurement import Measurement
from dspy_cachectl.reports.results import QuestionResult
from dspy_cachectl.reports.texts import finite
from dspy_cachectl.statistics.scores import is_missing

_MOST_KEPT = 1_000
"""Of how many slices the figures stand in a snapshot."""

M = TypeVar("M", bound=Measurement)


def names_of(fields: Sequence[str], example: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the slices that a question is in by fields: what each holds, with its name where there are several."""
    several = len(fields) > 1
    return tuple(f"{field}={name}" if several else name for field in fields for name in names_in(example[field]))


def names_in(said: Any) -> tuple[str, ...]:
    """Return the names of slices in what somebody says: one, several in a list, or none."""
    several = said if isinstance(said, (list, tuple, set, frozenset)) else [said]
    return tuple(sorted({str(one) for one in several if not is_missing(one)}))


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


def briefly(slices: Mapping[str, Measurement]) -> dict[str, dict[str, float | int | None]]:
    """Return the figures of slices for the end of a snapshot, where there is room for those of a thousand."""
    return {
        name: {"score": one.score, "low": finite(one.interval.low), "high": finite(one.interval.high), "n": one.n}
        for name, one in list(slices.items())[:_MOST_KEPT]
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
