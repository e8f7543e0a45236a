"""What else than the programs may be behind the difference of two reports."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from dspy_cachectl.reports.describe import model_text, temperature_text
from dspy_cachectl.reports.measurement import Measurement
from dspy_cachectl.reports.texts import number, plural
from dspy_cachectl.statistics.verdicts import PairedComparison

# In days: from here on, two reports are not of one time.
_LONG_AGO = 30

MODELS_DIFFER = "the models differ"
"""How a warning begins that is none to who compares models."""


def warnings_of(baseline: Measurement, candidate: Measurement, result: PairedComparison, shared: int) -> list[str]:
    """Return what stands in the way of trusting a comparison, in words."""
    found = list(_circumstances(baseline, candidate))
    if shared:
        # A run of its own does not help where the same answers were scored in another way on purpose.
        advice = "" if found else ". Evaluate one of them with a run id of its own"
        found.append(
            f"the two share {plural(shared, 'draw')}: what they have in common says nothing about their difference"
            f"{advice}"
        )
    for report in (baseline, candidate):
        if report.distinct.distinct != report.distinct.asked or report.distinct.known:
            found += [f"{report.name}: {sentence}" for sentence in report.distinct.said]
        if report.failures:
            found.append(f"{report.name}: {plural(report.failures, 'answer')} failed, counted with the failure score")
    found += (*_told(baseline, candidate), *_chosen(baseline, candidate))
    looked = [one.name for one in (baseline, candidate) if (how := one.provenance.stopping) and how.by == "comparison"]
    if looked:
        found.append(
            f"{' and '.join(looked)} grew until a comparison was settled: what is said here takes it for one of a size "
            "that was fixed before, and is too sure. The comparison of cachectl.settle() is the one that holds"
        )
    for name, missing in ((baseline.name, result.only_baseline), (candidate.name, result.only_candidate)):
        if missing:
            found.append(f"left out, since only {name!r} has them: {plural(len(missing), 'question')}")
    return found


def _told(baseline: Measurement, candidate: Measurement) -> Iterator[str]:
    """Yield what two programs were told beforehand of the questions of both, and their difference without these."""
    if not (baseline.leaked or candidate.leaked):
        return
    before = dict(zip(baseline.table.names, baseline.table.means, strict=True))
    after = dict(zip(candidate.table.names, candidate.table.means, strict=True))
    found = {question: mean - before[question] for question, mean in after.items() if question in before}
    told = {one.name: {leak.question for leak in one.leaked} & found.keys() for one in (baseline, candidate)}
    if not any(told.values()):
        return
    whose = " and ".join(f"{name!r} of {plural(len(some), 'question')}" for name, some in told.items() if some)
    others = [difference for question, difference in found.items() if question not in set().union(*told.values())]
    without = f"without these the difference is {number(fmean(others), sign=True)}" if others else "there are no others"
    yield f"demonstrations or instructions tell the program {whose} that it is asked: {without}"


def _chosen(*reports: Measurement) -> Iterator[str]:
    """Yield which programs were chosen by how they scored on these questions."""
    for report in reports:
        selection = report.provenance.selection
        if selection is not None and selection.is_chosen and selection.candidates > 1:
            yield (
                f"an optimizer chose {report.name!r} as the best of {selection.candidates:,} candidates by "
                f"{selection.questions:,} of its questions, where it looks too good: compare them on others"
            )


def _circumstances(baseline: Measurement, candidate: Measurement) -> Iterator[str]:
    """Yield what else than the programs may be behind a difference, in words."""
    before, after = baseline.provenance, candidate.provenance
    if before.metric_hash != after.metric_hash:
        yield "the two were scored with different metrics; rescore one of them"
    relabelled = _relabelled(baseline, candidate)
    if relabelled:
        yield f"the labels of {plural(relabelled, 'common question')} differ; evaluate both on the same examples"
    if before.failure_score != after.failure_score:
        yield f"failures count as {before.failure_score:g} in one and as {after.failure_score:g} in the other"
    for what, one, other in (
        (MODELS_DIFFER, model_text(before, counted=False), model_text(after, counted=False)),
        ("the temperatures differ", temperature_text(before, counted=False), temperature_text(after, counted=False)),
    ):
        if one != other and before.models and after.models:
            yield f"{what}: {baseline.name} {one}, {candidate.name} {other}"
    yield from _states_differ(baseline, candidate)
    days = _days_between(baseline, candidate)
    if days >= _LONG_AGO:
        yield (
            f"their draws lie {days:.0f} days apart: a model behind an unchanged name may have changed. Evaluate the "
            "older one afresh"
        )


def _states_differ(baseline: Measurement, candidate: Measurement) -> Iterator[str]:
    """Yield which model has answered in other states of its servers for one report than for the other."""
    before, after = (_states(report) for report in (baseline, candidate))
    for model in before.keys() & after.keys():
        if not before[model] & after[model]:
            said = [" and ".join(sorted(states[model])) for states in (before, after)]
            yield f"{model} may have changed behind its name: it was answered by {said[0]}, and then by {said[1]}"


def _states(report: Measurement) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    made = report.provenance
    for whose, models in (("", made.models), ("the judge ", made.judges)):
        for one in models:
            if one.state is not None:
                found.setdefault(f"{whose}{one.model}", set()).add(one.state)
    return found


def _relabelled(baseline: Measurement, candidate: Measurement) -> int:
    labels = {question.question: question.labels for question in baseline.questions}
    found = ((labels.get(question.question), question.labels) for question in candidate.questions)
    return sum(bool(before and after) and before != after for before, after in found)


def _days_between(baseline: Measurement, candidate: Measurement) -> float:
    """Return how many days lie between the draws of one and of the other; 0 where they overlap."""
    (first, last), (start, end) = (
        (report.oldest or report.provenance.created, report.newest or report.provenance.created)
        for report in (baseline, candidate)
    )
    return max(0.0, start - last, first - end) / 86400
