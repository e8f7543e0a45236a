"""What puts the score of a report in doubt, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from dspy_cachectl.accounting.asked import AskedModel
from dspy_cachectl.entries.model_names import is_same_name
from dspy_cachectl.reports.measurement import Measurement, Provenance
from dspy_cachectl.reports.texts import cut, ends_text, level_text, number, places, plural, score_text
from dspy_cachectl.statistics.power import selection_bias
from dspy_cachectl.statistics.quantiles import two_sided_quantile

_FAILURES_SHOWN = 3
_CHARACTERS_SHOWN = 80
_OTHERS = ". Ask it others: evaluate(..., holdout=questions)"


def caveats_of(report: Measurement) -> Iterator[str]:
    """Yield what puts the score of a report in doubt, in words: first what makes it one of something else."""
    yield from seen_before(report)
    missing = report.provenance.missing
    stopping = report.provenance.stopping
    if missing and not (stopping is not None and stopping.by == "budget"):
        yield (
            f"the evaluation was cut short: {plural(missing, 'answer')} more were asked for, and those that are slow "
            "to answer may be others than those that are quick"
        )
    yield from report.provenance.extent()
    yield from _uncounted(report.provenance)
    yield from _who_answered(report.provenance)
    yield from report.distinct.said
    yield from report.interval.caveats
    # By how they begin: what is told apart by what is not shown would stand there twice.
    failed = [
        (cut(draw.failed, _CHARACTERS_SHOWN), question.preview)
        for question in report.questions
        for draw in question.draws
        if draw.failed is not None
    ]
    reasons, where = Counter([why for why, _ in failed]), dict(failed)
    for why, count in reasons.most_common(_FAILURES_SHOWN):
        yield f"{plural(count, 'answer')} failed: {why} (for example: {cut(where[why], _CHARACTERS_SHOWN)})"
    if len(reasons) > _FAILURES_SHOWN:
        yield f"answers failed for {plural(len(reasons) - _FAILURES_SHOWN, 'more reason')}; see to_pandas()"
    unseen = report.provenance.unseen
    if unseen:
        said = "; ".join(cut(one, _CHARACTERS_SHOWN) for one in unseen[:_FAILURES_SHOWN])
        more = f"; and {len(unseen) - _FAILURES_SHOWN:,} more" if len(unseen) > _FAILURES_SHOWN else ""
        yield (
            f"kept predictions were loaded, and what else these rest on may have changed: {said}{more}. Say what "
            "it is: evaluate(..., depends_on=[...]) takes files, or a dictionary of values"
        )
    unkept = report.provenance.counters.get("failed_writes", 0)
    if unkept:
        yield (
            f"{plural(unkept, 'draw')} could not be stored: resumed, this run buys {'it' if unkept == 1 else 'them'} "
            "again, and gets other answers"
        )
    unsaved = report.provenance.unsaved
    if unsaved:
        yield f"{plural(unsaved, 'prediction')} could not be kept and will be computed again"


def seen_before(report: Measurement) -> Iterator[str]:
    """Yield what the program was told of these questions beforehand, and that it was chosen by them."""
    yield from _leaked(report)
    yield from _chosen(report)


def _leaked(report: Measurement) -> Iterator[str]:
    """Yield how many questions the program was told beforehand, and the score without them."""
    if not report.leaked:
        return
    places = Counter(leak.where for leak in report.leaked)
    where = "; ".join(f"{count:,} in the {place}" for place, count in places.most_common(_FAILURES_SHOWN))
    near = sum(not leak.is_exact for leak in report.leaked)
    nearly = f", {near:,} of them with other blanks, capitals or punctuation" if near else ""
    others = report.without_leaks
    if others is None:
        without = "There are no others"
    else:
        ends = ends_text(others.interval, others.standard_error)
        without = (
            f"Score of the other {others.n:,}: {score_text(others.score, others.standard_error)}, "
            f"{level_text(others.interval)} interval {ends}"
        )
    is_one = len(report.leaked) == 1
    yield (
        f"{len(report.leaked):,} of {plural(report.n, 'question')} {'stands' if is_one else 'stand'} in the program's "
        f"own demonstrations or instructions ({where}{nearly}): it was told what it is asked. {without}"
    )


def _chosen(report: Measurement) -> Iterator[str]:
    """Yield that a program was chosen by how it scored on these questions, and how much too good it may look."""
    selection = report.provenance.selection
    if selection is None or not selection.is_chosen or selection.candidates == 1:
        return
    bias = number(bias_of_best([report], selection.candidates), places(report.standard_error))
    yield (
        f"an optimizer chose this program by its score on {selection.questions:,} of these "
        f"{plural(report.n, 'question')}, as the best of {selection.candidates:,} candidates: it may look too good by "
        f"up to about {bias}{'' if getattr(report, 'holdout', None) else _OTHERS}"
    )


def bias_of_best(reports: Sequence[Measurement], among: int) -> float:
    """Return by about how much the best of so many may look too good, in units of the score (see `selection_bias`).

    Where all questions scored the same, which is what the luckiest of many does, the spread of 0 promises nothing, and
    the intervals take its place.

    Args:
        reports: The reports, or that of the best.
        among: How many were scored.
    """
    error = max(report.standard_error for report in reports)
    return selection_bias(error or max(map(_half, reports)), among)


def _half(report: Measurement) -> float:
    interval, score = report.interval, report.score
    return max(interval.high - score, score - interval.low) / two_sided_quantile(interval.level)


def _uncounted(made: Provenance) -> Iterator[str]:
    """Yield what was paid for, or will be, without being in what was spent."""
    unfinished = made.unfinished
    if unfinished:
        yield (
            f"{plural(unfinished, 'answer')} {'is' if unfinished == 1 else 'are'} still being made, though nobody "
            "waits any more: what LM calls in the air cost is not counted here"
        )
    strayed = made.counters.get("stray", 0)
    if strayed:
        yield (
            f"{plural(strayed, 'call')} of the program, the metric or others came from a bare thread pool: what "
            f"{'it' if strayed == 1 else 'they'} cost is not in what was spent. Hand the pool cachectl.carry(function)"
        )


def _who_answered(made: Provenance) -> Iterator[str]:
    """Yield what is to be said of models that answered in place of others, or that changed; then of judges."""
    yield from _of_one_kind(made.models, "", "model")
    yield from _of_one_kind(made.judges, "the judge ", "judge")


def _of_one_kind(models: Iterable[AskedModel], whose: str, kind: str) -> Iterator[str]:
    where = {one.model: one.endpoint for one in models if one.instead_of is None}
    asked: dict[tuple[str, str | None], list[AskedModel]] = {}
    for one in models:
        key = (one.model, one.endpoint) if one.instead_of is None else (one.instead_of, where.get(one.instead_of))
        if one.answered_by is not None:
            asked.setdefault(key, []).append(one)
    for (name, _), answered in asked.items():
        model = f"{whose}{name}"
        yield from _states(model, answered, kind)
        others = [one for one in answered if one.is_other]
        first, *more = dict.fromkeys(str(one.answered_by) for one in answered)
        is_one = all(is_same_name(first, other) for other in more)
        if others:
            calls, of_others = (sum(one.calls for one in some) for some in (answered, others))
            share = "" if calls == of_others else f" in {of_others:,} of {plural(calls, 'call')}"
            all_of = "All these answers are that model's" if is_one else f"The score is not of one {kind}"
            yield f"{model} was answered by another model than was asked{share}: {_names(others)}. {all_of}"
        elif not is_one:
            yield f"{model} was answered by more than one model: {_names(answered)}. The score is not of one {kind}"


def _states(model: str, answered: Iterable[AskedModel], kind: str) -> Iterator[str]:
    """Yield what is to be said of a model that was answered in several states of its servers, or in a new one."""
    found: Counter[str] = Counter()
    before: dict[str, str] = {}
    for one in answered:
        if one.state is not None:
            found[one.state] += one.calls
        if one.state_before is not None:
            before[one.state or str(one.answered_by)] = one.state_before
    if len(found) > 1:
        said = ", ".join(f"{name} ({plural(count, 'call')})" for name, count in found.most_common())
        yield (
            f"{model} was answered in {len(found):,} states of its servers (system_fingerprint): {said}. The score may "
            f"not be of one {kind}"
        )
    for now, then in before.items():
        yield (
            f"{model} is answered by {now} now, and answered those who use this store by {then} before: a model may "
            "have changed behind its name"
        )


def _names(answered: Iterable[AskedModel]) -> str:
    found: Counter[str] = Counter()
    for one in answered:
        found[str(one.answered_by)] += one.calls
    return ", ".join(f"{name} ({plural(count, 'call')})" for name, count in found.items())
