"""Which facts of a report are shown, and in which words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dspy_cachectl.accounting.asked import AskedModel
from dspy_cachectl.accounting.ledger import NOTABLE, in_words
from dspy_cachectl.entries import token_counts
from dspy_cachectl.reports.apart.tables import parts_of
from dspy_cachectl.reports.caveats import caveats_of
from dspy_cachectl.reports.independence import NONE_SEEN
from dspy_cachectl.reports.measurement import Measurement, Provenance
from dspy_cachectl.reports.results import DrawResult
from dspy_cachectl.reports.texts import (
    MISSING,
    distinct_text,
    duration,
    ends_text,
    level_text,
    money,
    number,
    places,
    plural,
    score_text,
    short,
    short_name,
    when,
)
from dspy_cachectl.reports.troubles import TITLE as TROUBLE, trouble_rows
from dspy_cachectl.showing.sheets import Cell, Intervals, Sheet, Span, facts, notes, sheet

REPORT_COLUMNS = ("report", "score", "interval", "questions", "repeats", "failed", "per answer", "model")
MORE = "details() has the rest."
_UNPAIRED_SHOWN = 20
_IN_ROWS_OF_THEIR_OWN = {"temperatures_lent", "unpriced"}


def report_sheet(report: Measurement, *against: tuple[str, str]) -> Sheet:
    """Describe a report: the score and its error, what it rests on, and what it was made of.

    Args:
        report: The report.
        against: What else stands beside its score.
    """
    return sheet(
        f"Evaluation of {report.name}",
        Cell(_headline(report)),
        notes("Caveats", caveats_of(report)),
        facts("Score", (*_score_rows(report), *against)),
        *parts_of(report),
        facts(TROUBLE, trouble_rows(report.troubles)),
        facts("Provenance", _provenance_rows(report), is_aside=True),
        picture=scores_picture([report]),
    )


def scores_picture(reports: Sequence[Measurement]) -> Intervals:
    """Return the picture of scores with their intervals, on the scale of their metric."""
    scales = {report.table.score_range for report in reports}
    metrics = dict.fromkeys(report.provenance.metric for report in reports)
    levels = sorted({level_text(report.interval) for report in reports})
    return Intervals(
        tuple(_span(report) for report in reports),
        axis=f"score ({' / '.join(metrics)}), {' or '.join(levels)} interval",
        scale=(0.0, 1.0) if scales == {(0.0, 1.0)} else (),
    )


def _span(report: Measurement) -> Span:
    interval, error = report.interval, report.standard_error
    said = f"{number(report.score, places(error))} ({ends_text(interval, error)})"
    return Span(report.name, said, report.score, interval.low, interval.high)


def report_brief(report: Measurement, *against: tuple[str, str]) -> Sheet:
    """Describe a report on one screen: its score, what makes it doubtful, what answered, and what to do.

    Args:
        report: The report.
        against: What else stands beside its score.
    """
    error, made = report.standard_error, report.provenance
    wanted = {"scored before", "clusters", "model", "temperature", "judge", "what changed", "LM calls"}
    if report.failures:
        wanted.add("failures")
    if made.rescored or any(draw.loaded for draw in report.draws):
        wanted.add("predictions")
    rows = [row for row in (*_score_rows(report), *_provenance_rows(report)) if row[0] in wanted]
    often = "once" if report.repeats == 1 else f"{report.repeats:,} times"
    rows.insert(0, ("questions", f"{report.n:,}, each {often}: {distinct_text(report.distinct)}"))
    rows.append(("spent", _spent_and_saved(made.counters)))
    return sheet(
        f"Evaluation of {report.name}",
        Cell(_headline(report)),
        notes("Caveats", caveats_of(report)),
        facts("", (*rows, *against)),
        *parts_of(report, briefly=True),
        facts(TROUBLE, trouble_rows(report.troubles)),
        notes("What would make it more certain", [report.variance.advice] if error else []),
        more=MORE,
    )


def _spent_and_saved(counters: Mapping[str, Any]) -> str:
    requests, unpriced = counters.get("requests", 0), counters.get("unpriced", 0)
    said = [plural(requests, "request")] if requests else []
    for kind in ("spent", "saved") if counters else ():
        cost = counters.get(f"cost_{kind}", 0.0)
        if cost or counters.get(f"tokens_{kind}"):
            tokens = token_counts.in_words(counters, f"_{kind}")
            said.append(f"{'saved ' if kind == 'saved' else ''}{tokens}{f', {money(cost)}' if cost else ''}")
    if unpriced:
        said.append(f"{plural(unpriced, 'request')} without a known price")
    return ", ".join(said)


def _headline(report: Measurement) -> str:
    error, interval = report.standard_error, report.interval
    score, ends = score_text(report.score, error), ends_text(interval, error)
    return f"score {score}, {level_text(interval)} interval {ends} ({interval.method})"


def _score_rows(report: Measurement) -> tuple[tuple[str, str], ...]:
    interval, error, split, distinct = report.interval, report.standard_error, report.variance, report.distinct
    share = MISSING if split.share_within is None else f"{split.share_within:.0%}"
    parts = f"{number(split.between)} between questions, {number(split.within)} between draws of one question"
    ks = sorted({1, report.repeats}) if report.table.is_binary else []
    agreeing = f"all draws of a question agree for {number(report.consistency)} of them"
    return (
        ("score", f"{score_text(report.score, error)} (standard error)"),
        (f"{level_text(interval)} interval", f"{ends_text(interval, error)}, {interval.method}"),
        ("questions", f"{report.n:,}"),
        ("scored before", _scored_before(report)),
        ("repeats", f"{report.repeats:,}: {distinct_text(distinct)}"),
        ("failures", _failures(report)),
        ("variance", f"{parts} ({share} of both)" if split.within is not None or split.between is not None else ""),
        ("to shorten the interval", split.advice),
        ("one of k passes", ", ".join(f"pass@{k} {number(report.pass_at_k(k))}" for k in ks)),
        ("all of k pass", ", ".join(f"pass^{k} {number(report.pass_hat_k(k))}" for k in ks)),
        ("flip rate", f"{number(report.flip_rate)}; {agreeing}" if math.isfinite(report.flip_rate) else ""),
        ("clusters", _clusters(report)),
    )


def _scored_before(report: Measurement) -> str:
    selection = report.provenance.selection
    if selection is None:
        return ""
    whose = ", this program among them" if selection.is_chosen else ""
    return f"{plural(selection.candidates, 'candidate')}{whose}, on {selection.questions:,} of these while compiling"


def _clusters(report: Measurement) -> str:
    found = report.error
    if found.clusters is None:
        return ""
    independent = number(found.independent, places(found.value))
    otherwise = f"standard error {independent} if the questions were independent"
    whose = ", equal questions together" if report.clusters_are_questions else ""
    return f"{found.clusters:,}{whose}; design effect {number(found.design_effect)} ({otherwise})"


def _failures(report: Measurement) -> str:
    asked = report.distinct.asked
    if not report.failures:
        return f"none of {plural(asked, 'answer')}"
    without = number(report.score_without_failures, places(report.standard_error))
    left = 0 if report.answered is None else report.answered.n
    worth = sorted({draw.score for draw in report.draws if draw.failed is not None})
    return (
        f"{report.failures:,} of {plural(asked, 'answer')}, counted as {' or '.join(map(number, worth))}; "
        f"score without them {without} "
        f"({plural(left, 'question')})"
    )


def _provenance_rows(report: Measurement) -> tuple[tuple[str, str], ...]:
    made, draws = report.provenance, report.draws
    tokens, seconds = sum(draw.tokens for draw in draws), math.fsum(draw.seconds for draw in draws)
    cost = "price not known" if report.cost is None else money(report.cost)
    apart = token_counts.parts(*(sum(getattr(draw, name) for draw in draws) for name in token_counts.PARTS))
    made_of = f"{plural(tokens, 'token')}{f' ({apart})' if apart else ''}, {cost}, {duration(seconds)} of the provider"
    return (
        ("run", f"{made.run_id or 'none'} (phase {made.phase}, policy {made.policy})"),
        ("model", model_text(made)),
        ("temperature", temperature_text(made)),
        ("program", short(made.program)),
        ("data", short(made.data)),
        ("metric", f"{made.metric} {short(made.metric_hash)}"),
        ("judge", _judges(made)),
        ("predictions", _predictions(made, draws)),
        ("what changed", "; ".join(made.changes)),
        ("LM calls", _calls(made.counters)),
        ("spent", _money_row(made.counters, "spent")),
        ("saved", _money_row(made.counters, "saved")),
        ("made of", f"{made_of}, whoever paid for them"),
        ("oldest draw", when(report.oldest)),
        ("newest draw", when(report.newest)),
        ("evaluated", f"{when(made.created)}, in {duration(made.seconds)}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in made.versions.items())),
    )


def _judges(made: Provenance) -> str:
    """Write which models the metric asked, and at which temperatures."""
    found: Counter[str] = Counter()
    for one in made.judges:
        found[f"{_named(one)}, temperature {'unset' if one.temperature is None else number(one.temperature)}"] += (
            one.calls
        )
    return _listed(found, counted=True)


def _named(one: AskedModel) -> str:
    version = "" if one.version is None else f", version {short_name(one.version)}"
    said = one.answered_by or one.model
    by = "" if f"/{one.model}".endswith(f"/{said}") else f", answered by {said}"
    by += f", in place of {one.instead_of}" if one.instead_of else ""
    return f"{one.model} @ {one.endpoint or 'the provider'}{version}{by}"


def circumstance_text(report: Measurement) -> str:
    """Write in which circumstances the answers of a report were made."""
    made = report.provenance
    return f"{model_text(made)}; temperature {temperature_text(made)}; newest draw {when(report.newest)}"


def unpaired_rows(
    previews: Mapping[str, str], only: Iterable[tuple[str, Sequence[str]]]
) -> tuple[tuple[Cell, ...], ...]:
    """Return rows of the questions that only one of two reports has.

    Args:
        previews: The beginning of each, by what identifies it.
        only: The name of each report, and what identifies those.
    """
    questions = [(name, one) for name, some in only for one in some]
    rows = [(name, short(one), previews.get(one, MISSING)) for name, one in questions[:_UNPAIRED_SHOWN]]
    if left := len(questions) - len(rows):
        rows.append(("", "", f"and {left:,} more: as_dict()['only_baseline'] and ['only_candidate'] list them all"))
    return tuple(tuple(map(Cell, row)) for row in rows)


def model_text(made: Provenance, *, counted: bool = True) -> str:
    """Write which models answered: the name of each, where it is served, its version, and its number of calls."""
    found: Counter[str] = Counter()
    for one in made.models:
        found[_named(one)] += one.calls
    return _listed(found, counted=counted) or f"not known: {_unknown(made)}"


def _unknown(made: Provenance) -> str:
    return "the LM calls were made out of sight" if made.counters.get("stray") else NONE_SEEN


def _listed(found: Counter[str], *, counted: bool) -> str:
    return "; ".join(f"{one} ({plural(calls, 'call')})" if counted and calls else one for one, calls in found.items())


def temperature_text(made: Provenance, *, counted: bool = True) -> str:
    """Write at which temperatures they were asked, and whose these were."""
    found: Counter[str] = Counter()
    for one in made.models:
        if one.embeds:
            continue
        whose = "lent by the phase" if one.lent else "as the program asks"
        found[f"{'unset' if one.temperature is None else number(one.temperature)}, {whose}"] += one.calls
    return _listed(found, counted=counted) or "not known"


def _predictions(made: Provenance, draws: Sequence[DrawResult]) -> str:
    if made.predictions == "off":
        return "off: computed, and not kept"
    where = f" ({made.snapshot})" if made.snapshot else ""
    loaded = sum(draw.loaded for draw in draws)
    rescored = f", {made.rescored:,} rescored" if made.rescored else ""
    said = f"{made.predictions}: {loaded:,} of {plural(len(draws), 'answer')} loaded{rescored}{where}"
    if made.library_bytes is None or made.library_limit is None:
        return said
    return f"{said}; the library takes {made.library_bytes / 1e6:,.1f} MB of {made.library_limit / 1e6:,.0f} MB"


def _calls(counters: Mapping[str, Any]) -> str:
    if not counters:
        return MISSING
    names = [name for name in NOTABLE if counters.get(name) and name not in _IN_ROWS_OF_THEIR_OWN]
    said = ", ".join(in_words(name, counters[name]) for name in names)
    return f"{counters.get('calls', 0):,}" + (f": {said}" if said else "")


def _money_row(counters: Mapping[str, Any], kind: str) -> str:
    if not counters:
        return MISSING
    cost, unpriced = counters.get(f"cost_{kind}", 0.0), kind == "spent" and counters.get("unpriced")
    said = [
        token_counts.in_words(counters, f"_{kind}"),
        *([money(cost)] if cost or not unpriced else []),
        f"{duration(counters.get(f'seconds_{kind}', 0.0))} of the provider",
    ]
    if kind == "spent":
        said.insert(0, plural(counters.get("requests", 0), "request"))
    if unpriced:
        said.append(f"{plural(unpriced, 'request')} without a known price")
    return ", ".join(said)


def report_row(report: Measurement) -> tuple[Cell, ...]:
    """Return the cells of a report in a table of several, below `REPORT_COLUMNS`."""
    cost = f", {money(report.cost_per_answer)}" if report.cost_per_answer else ""
    return (
        Cell(report.name),
        Cell(score_text(report.score, report.standard_error)),
        Cell(ends_text(report.interval, report.standard_error)),
        Cell(f"{report.n:,}"),
        Cell(f"{report.repeats:,}"),
        Cell(f"{report.failures:,}"),
        Cell(f"{number(report.tokens_per_answer)} tokens{cost}"),
        Cell(report.provenance.model or MISSING),
    )
