"""Which facts of a report are shown, and in which words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.reports.sheets import (
    MISSING,
    Cell,
    Facts,
    Notes,
    Sheet,
    duration,
    moment,
    money,
    number,
    places,
    plural,
    sheet,
    short,
    short_name,
)

if TYPE_CHECKING:
    from dspy_cachectl.reports.report import EvalReport
    from dspy_cachectl.reports.results import Provenance
    from dspy_cachectl.statistics import Interval

_FAILURES_SHOWN = 3
_CHARACTERS_SHOWN = 80
_HOW_SERVED = ("fresh", "resumed", "reused", "coalesced")
_NOTABLE = (
    "refreshed",
    "replayed",
    "collapsed",
    "uncacheable",
    "missed",
    "failed",
    "expired",
    "truncated",
    "unstored",
    "failed_reads",
    "failed_writes",
    "not_distinct",
    "stray",
    "late",
)


@dataclass(frozen=True, slots=True)
class Price:
    """What the answers behind a score are made of, whoever paid for them and whenever.

    Attributes:
        answers: How many answers there are, one a question and repeat.
        loaded: How many of them were loaded from saved predictions.
        tokens: Their tokens.
        cost: Their US dollars; 0 where no price is known.
        seconds: The seconds that the provider took.
    """

    answers: int
    loaded: int
    tokens: int
    cost: float
    seconds: float

    @classmethod
    def of(cls, report: EvalReport) -> Price:
        """Add up the answers of a report."""
        draws = [draw for question in report.questions for draw in question.draws]
        return cls(
            answers=len(draws),
            loaded=sum(draw.loaded for draw in draws),
            tokens=sum(draw.tokens for draw in draws),
            cost=math.fsum(draw.cost for draw in draws),
            seconds=math.fsum(draw.seconds for draw in draws),
        )

    @property
    def tokens_per_answer(self) -> float:
        """Tokens of one answer, on average."""
        return self.tokens / self.answers

    @property
    def cost_per_answer(self) -> float:
        """US dollars of one answer, on average."""
        return self.cost / self.answers


def describe_report(report: EvalReport) -> Sheet:
    """Describe a report: the score and its error, what it rests on, and what it was made of."""
    return sheet(
        f"Evaluation of {report.name}",
        Cell(f"score {score_with_error(report)}, {interval_text(report.interval, report.standard_error)}"),
        Facts("Score", tuple(_score_rows(report))),
        Notes("Caveats", tuple(_caveats(report))),
        Facts("Provenance", tuple(_provenance_rows(report)), is_aside=True),
    )


def score_with_error(report: EvalReport) -> str:
    """Write a score and its standard error with the digits that the error allows."""
    decimals = places(report.standard_error)
    return f"{number(report.score, decimals)} ± {number(report.standard_error, decimals)}"


def interval_text(interval: Interval, error: float) -> str:
    """Write an interval with its level and its method."""
    return f"{level_text(interval)} interval {ends_text(interval, error)} ({interval.method})"


def level_text(interval: Interval) -> str:
    """Write the level of an interval."""
    return f"{100 * interval.level:.4g}%"


def ends_text(interval: Interval, error: float, *, sign: bool = False) -> str:
    """Write the ends of an interval with the digits that the error allows."""
    decimals = places(error)
    return f"{number(interval.low, decimals, sign=sign)} to {number(interval.high, decimals, sign=sign)}"


def _score_rows(report: EvalReport) -> Iterator[tuple[str, str]]:
    interval, error = report.interval, report.standard_error
    yield "score", f"{score_with_error(report)} (standard error)"
    yield f"{level_text(interval)} interval", f"{ends_text(interval, error)}, {interval.method}"
    yield "questions", f"{report.n:,}"
    distinct = report.distinct
    yield "repeats", f"{report.repeats:,}: {distinct.distinct:,} distinct draws of {distinct.asked:,}"
    yield "failures", _failures(report)
    split = report.variance
    share = MISSING if split.share_within is None else f"{split.share_within:.0%}"
    parts = f"{number(split.between)} between questions, {number(split.within)} between draws of one question"
    yield "variance", f"{parts} ({share} of both)"
    yield "to shorten the interval", split.advice.sentence
    if report.table.is_binary:
        ks = sorted({1, report.repeats})
        yield "one of k passes", ", ".join(f"pass@{k} {number(report.pass_at_k(k))}" for k in ks)
        yield "all of k pass", ", ".join(f"pass^{k} {number(report.pass_hat_k(k))}" for k in ks)
    yield (
        "flip rate",
        f"{number(report.flip_rate)}; all draws of a question agree for {number(report.consistency)} of them",
    )
    if report.clusters is not None:
        independent = number(report.estimate.error.independent, places(error))
        otherwise = f"standard error {independent} if the questions were independent"
        yield "clusters", f"{report.clusters:,}; design effect {number(report.design_effect)} ({otherwise})"
    if report.baseline is not None:
        yield f"against {report.baseline.name}", _against_baseline(report)


def _against_baseline(report: EvalReport) -> str:
    try:
        comparison = report.comparison
    except ConfigurationError as error:
        return f"cannot be compared: {error}"
    if comparison is None:
        return MISSING
    error_of_it = comparison.result.error.value
    difference = number(comparison.difference, places(error_of_it), sign=True)
    ends = ends_text(comparison.interval, error_of_it, sign=True)
    return f"{comparison.verdict_text}: {difference}, {level_text(comparison.interval)} interval {ends}"


def _failures(report: EvalReport) -> str:
    asked = report.distinct.asked
    if not report.failures:
        return f"none of {plural(asked, 'answer')}"
    without = number(report.score_without_failures, places(report.standard_error))
    left = report.estimate.n_without_failures
    worth = sorted({draw.score for question in report.questions for draw in question.draws if draw.failed is not None})
    return (
        f"{report.failures:,} of {plural(asked, 'answer')}, counted as {' or '.join(map(number, worth))}; "
        f"score without them {without} "
        f"({plural(left, 'question')})"
    )


def _caveats(report: EvalReport) -> Iterator[str]:
    yield from report.interval.caveats
    if report.distinct.sentence:
        yield report.distinct.sentence
    reasons = Counter(
        draw.failed for question in report.questions for draw in question.draws if draw.failed is not None
    )
    where = {draw.failed: question.preview for question in report.questions for draw in question.draws}
    for reason, count in reasons.most_common(_FAILURES_SHOWN):
        yield f"{plural(count, 'answer')} failed: {_cut(reason)} (for example: {_cut(where[reason])})"
    if len(reasons) > _FAILURES_SHOWN:
        yield f"answers failed for {plural(len(reasons) - _FAILURES_SHOWN, 'more reason')}; see to_pandas()"
    unsaved = report.provenance.unsaved
    if unsaved:
        yield f"{plural(unsaved, 'prediction')} could not be saved and will be computed again"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _CHARACTERS_SHOWN else f"{text[: _CHARACTERS_SHOWN - 1]}…"


def _provenance_rows(report: EvalReport) -> Iterator[tuple[str, str]]:
    made, price = report.provenance, Price.of(report)
    yield "run", f"{made.run_id or 'none'} (phase {made.phase}, policy {made.policy})"
    yield "model", model_text(made)
    yield "temperature", _temperature(made)
    yield "program", short(made.program)
    yield "data", short(made.data)
    yield "metric", f"{made.metric} {short(made.metric_hash)}"
    yield "predictions", _predictions(made, price)
    if made.changes:
        yield "what changed", "; ".join(made.changes)
    yield "LM calls", _calls(made.counters)
    yield "spent", _money_row(made.counters, "spent")
    yield "saved", _money_row(made.counters, "saved")
    all_of_it = f"{plural(price.tokens, 'token')}, {money(price.cost)}, {duration(price.seconds)} of the provider"
    yield "made of", f"{all_of_it}, whoever paid for them"
    draws = [draw for question in report.questions for draw in question.draws]
    oldest = min((draw.oldest for draw in draws if draw.oldest is not None), default=None)
    newest = max((draw.newest for draw in draws if draw.newest is not None), default=None)
    yield "oldest draw", moment(oldest)
    yield "newest draw", moment(newest)
    yield "evaluated", f"{moment(made.created)}, in {duration(made.seconds)}"
    if made.versions:
        yield "versions", ", ".join(f"{name} {version}" for name, version in made.versions.items())


def model_text(made: Provenance) -> str:
    """Write which model it was: its name, where it is served, and its version."""
    version = "" if made.version is None else f", version {short_name(made.version)}"
    return f"{made.model} @ {made.endpoint or 'the provider'}{version}"


def _temperature(made: Provenance) -> str:
    own = "unset" if made.temperature is None else number(made.temperature)
    calls = made.counters.get("temperatures_lent", 0)
    lent_in = f" (in {plural(calls, 'call')})" if calls else ""
    if made.temperature_lent is None:
        return f"{own}, as the program asks"
    if not made.temperature:
        return f"{number(made.temperature_lent)}, lent by the phase{lent_in}; the program leaves it {own}"
    if calls:
        return f"{own}, as the program asks; {number(made.temperature_lent)} lent by the phase{lent_in}"
    return f"{own}, as the program asks; none lent by the phase"


def _predictions(made: Provenance, price: Price) -> str:
    if made.predictions == "off":
        return "off: computed, and not kept"
    where = f" ({made.snapshot})" if made.snapshot else ""
    said = f"{made.predictions}: {price.loaded:,} of {plural(price.answers, 'answer')} loaded{where}"
    if made.library_bytes is None or made.library_limit is None:
        return said
    return f"{said}; the library takes {made.library_bytes / 1e6:,.1f} MB of {made.library_limit / 1e6:,.0f} MB"


def _calls(counters: Mapping[str, Any]) -> str:
    if not counters:
        return MISSING
    served = ", ".join(f"{counters.get(name, 0):,} {name}" for name in _HOW_SERVED)
    more = [f"{counters[name]:,} {name.replace('_', ' ')}" for name in _NOTABLE if counters.get(name)]
    return "; ".join([f"{counters.get('calls', 0):,}: {served}", *more])


def _money_row(counters: Mapping[str, Any], kind: str) -> str:
    if not counters:
        return MISSING
    said = [
        plural(counters.get(f"tokens_{kind}", 0), "token"),
        money(counters.get(f"cost_{kind}", 0.0)),
        f"{duration(counters.get(f'seconds_{kind}', 0.0))} of the provider",
    ]
    if kind == "spent":
        said.insert(0, plural(counters.get("requests", 0), "request"))
        if counters.get("unpriced"):
            said.append(f"{plural(counters['unpriced'], 'request')} without a known price")
    return ", ".join(said)
