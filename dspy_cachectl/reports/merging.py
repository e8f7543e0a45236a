"""One report of the parts of an evaluation, as if it had been made at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from dspy_cachectl.accounting.asked import counted_together, facts
from dspy_cachectl.accounting.ledger import FIELDS, Row, Stats, Tally
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.reports.measurement import Measurement, Provenance
from dspy_cachectl.reports.results import OtherMetric, QuestionResult
from dspy_cachectl.reports.texts import plural
from dspy_cachectl.showing.stand_in import passes_on

M = TypeVar("M", bound=Measurement)

_SAME = ("run_id", "data", "program", "metric_hash", "phase", "policy", "failure_score")
"""What all parts of an evaluation have in common."""
_ADDED = ("unsaved", "unfinished", "rescored", "missing")


@passes_on
def merged(reports: Sequence[M]) -> M:
    """Return the report of an evaluation, given those of all its parts; see `EvalReport.merge`."""
    parts = _in_order(reports)
    _check_same(parts)
    for report in parts:
        if report.provenance.missing:
            raise ConfigurationError(
                f"{_named(report)} was cut short: {plural(report.provenance.missing, 'answer')} more were asked for. "
                "Evaluate it again, which goes on from there"
            )
    return joined(parts, list(_dealt([report.questions for report in parts])))


def joined(parts: Sequence[M], questions: Sequence[QuestionResult]) -> M:
    """Return a report of parts that belong together, given their questions in the order of the data set."""
    paths = {report.path for report in parts}
    return replace(
        parts[0],
        questions=tuple(questions),
        provenance=_together([report.provenance for report in parts]),
        path=paths.pop() if len(paths) == 1 else None,
    )


def _in_order(reports: Sequence[M]) -> list[M]:
    """Return the parts in their order. Raises ConfigurationError where one is missing, or none, or there twice."""
    if not reports:
        raise ConfigurationError("there is no report to merge: give those of all shards")
    found: dict[int, M] = {}
    _check_reports(reports)
    of = {report.provenance.shard[1] for report in reports if report.provenance.shard is not None}
    for report in reports:
        shard = report.provenance.shard
        if shard is None:
            raise ConfigurationError(
                f"{report.name!r} is the report of a whole evaluation: merge those of evaluate(..., shard=(i, n))"
            )
        if len(of) > 1:
            raise ConfigurationError(
                f"these are shards of {' and of '.join(map(str, sorted(of)))}: they ask the questions in other parts"
            )
        if shard[0] in found:
            raise ConfigurationError(f"{_named(report)} is there twice")
        found[shard[0]] = report
    (count,) = of
    missing = [str(index) for index in range(count) if index not in found]
    if missing:
        raise ConfigurationError(f"shards are missing: {', '.join(missing)} of {count}")
    return [found[index] for index in range(count)]


def _check_reports(reports: Sequence[Any]) -> None:
    for report in reports:
        if not isinstance(report, Measurement):
            raise ConfigurationError(
                f"reports of evaluate(..., shard=(i, n)) are merged, not a {type(report).__name__}"
            )


def _check_same(parts: Sequence[Measurement]) -> None:
    first = parts[0]
    for report in parts[1:]:
        before, now = first.provenance, report.provenance
        said = [(name, getattr(before, name), getattr(now, name)) for name in _SAME]
        said += [("repeats", first.repeats, report.repeats), ("level", first.level, report.level)]
        further = [[(other.metric, other.metric_hash) for other in made.others] for made in (before, now)]
        said.append(("metrics", further[0], further[1]))
        for name, one, other in said:
            if one != other:
                raise ConfigurationError(
                    f"{_named(first)} and {_named(report)} are not of one evaluation: {name} is {one!r} and {other!r}"
                )
    _check_apart(parts)


def _check_apart(parts: Sequence[Measurement]) -> None:
    asked: dict[str, Measurement] = {}
    for report in parts:
        for question in report.questions:
            other = asked.setdefault(question.question, report)
            if other is not report:
                raise ConfigurationError(
                    f"{_named(other)} and {_named(report)} both asked question {question.question!r}: they had the "
                    "data set in another order. Give all shards the same, in one order"
                )


def _named(report: Measurement) -> str:
    index, of = report.provenance.shard or (0, 1)
    return f"shard {index} of {of}"


def _dealt(parts: Sequence[Sequence[QuestionResult]]) -> Iterator[QuestionResult]:
    """Yield the questions in the order of the data set: the first of each part, then the second of each."""
    last = len(parts[-1])
    if any(len(part) not in {last, last + 1} for part in parts) or sorted(parts, key=len, reverse=True) != list(parts):
        raise ConfigurationError("these shards do not make a whole: questions of some of them are missing")
    for row in itertools.zip_longest(*parts):
        yield from (question for question in row if question is not None)


def _together(made: Sequence[Provenance]) -> Provenance:
    last = max(made, key=lambda one: one.created)
    answered = facts(counted_together(one.models for one in made))
    if not answered["models"]:
        answered = {}  # nothing was told by a call, and each says the same
    else:
        answered["seeds"] = tuple(sorted({seed for one in made for seed in one.seeds}, key=str))
    return replace(
        made[0],
        **answered,
        **{name: sum(getattr(one, name) for one in made) for name in _ADDED},
        judges=counted_together(one.judges for one in made),
        others=tuple(map(_as_one, zip(*(one.others for one in made), strict=True))),
        predictions=_agreed((one.predictions for one in made), "extended"),
        changes=_each_once(one.changes for one in made),
        unseen=_each_once(one.unseen for one in made),
        snapshot=_agreed((one.snapshot for one in made), None),
        counters=_counters(made),
        seconds=max(one.seconds for one in made),
        created=last.created,
        library_bytes=last.library_bytes,
        library_limit=last.library_limit,
        shard=None,
    )


def _as_one(parts: Sequence[OtherMetric]) -> OtherMetric:
    judges, rescored = counted_together(one.judges for one in parts), sum(one.rescored for one in parts)
    # What a whole set comes to is not told by what its parts do.
    return replace(parts[0], judges=judges, rescored=rescored, interval=None)


def _counters(made: Iterable[Provenance]) -> dict[str, Any]:
    rows = (row for one in made for row in one.counters.get("by", ()))
    return Stats.of(
        (
            Row(str(row["phase"]), row["role"], str(row["model"])),
            Tally(**{name: amount for name in FIELDS if (amount := row.get(name, 0))}),
        )
        for row in rows
    ).as_dict()


def _each_once(texts: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(itertools.chain(*texts)))


def _agreed(values: Iterable[Any], otherwise: Any) -> Any:
    said = set(values)
    return said.pop() if len(said) == 1 else otherwise
