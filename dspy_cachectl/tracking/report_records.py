"""What is logged of reports and comparisons, and under which names. Pure, but for uid, time, steps and figures."""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.entries.token_counts import PARTS
from dspy_cachectl.errors import ConfigurationError, MissingExtraError
from dspy_cachectl.page.document import document
from dspy_cachectl.reports.troubles import totals
from dspy_cachectl.tracking.outgoing import (
    Outgoing,
    artifact,
    first_step,
    ledger_metrics,
    ledger_table,
    milliseconds,
    named,
    points,
    program_model,
    table,
    tags,
)
from dspy_cachectl.tracking.phase_records import feedback
from dspy_cachectl.tracking.record import REPORT_TAG, Dataset, Record, new_uid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dspy_cachectl.context.evaluations import Evaluation
    from dspy_cachectl.reports.comparison import Comparison
    from dspy_cachectl.reports.measurement import Measurement
    from dspy_cachectl.reports.paged import Paged
    from dspy_cachectl.reports.report import EvalReport
    from dspy_cachectl.reports.several import Comparisons
    from dspy_cachectl.reports.troubles import PredictorTrouble
    from dspy_cachectl.tracking.resolve import Target

logger = logger_for(__name__)

_DRAWN = ("draw", "output", "loaded", "requests", "tokens", *PARTS, "cost", "seconds", "oldest", "newest")
_ROW = ("question", "preview", "cluster", "slices", "repeat", "score", "failed", "feedback", "others", *_DRAWN)
"""The columns of the table with a row a draw."""
_MOST_TEXT = 10_000_000
"""How many characters of texts a logged page has: all of it is made and sent within a limit of time."""
_APART = ("of", "name", "n", "score", "standard_error", "ci_low", "ci_high", "failures")
"""The columns of the table with a row for each metric, and for each slice."""
_MOST_APART = 50
_UNNAMED = re.compile(r"[^\w\- .]", re.ASCII)
_LONGEST_NAME = 100
_TROUBLE = ("predictor", "kind", "count", "questions", "where")


def digest(report: Measurement) -> str:
    """Return what tells a report from any other, whatever it is called."""
    made = json.dumps(asdict(report.provenance), sort_keys=True, default=str)
    # The results are frozen values of texts and numbers, of which the plain text is as good and many times as fast.
    return hashlib.sha256(f"{made}{report.questions!r}".encode()).hexdigest()[:32]


def of_report(report: EvalReport, evaluations: Sequence[Evaluation], target: Target) -> list[Outgoing]:
    """Return what is delivered of a report: each repeat is a step, and the totals stand at the last one.

    Args:
        report: The report.
        evaluations: Its evaluations, where they are known. Where they ran in one MLflow run, it is the report's; of
            several, as autolog opens them for the repeats, the report's run becomes the parent.
        target: Where it goes, unless its evaluations had a run.
    """
    seen = list(dict.fromkeys(item.mlflow_run_id for item in evaluations if item.mlflow_run_id is not None))
    if len(seen) == 1:
        target = target.of(seen.pop())
    outgoing = _of_report(report, target, children=seen)
    return [outgoing, *feedback(outgoing.record, evaluations, now=time.time())]


def _of_report(report: EvalReport, target: Target, *, children: Sequence[str]) -> Outgoing:
    made = report.provenance
    uid, step = new_uid(), first_step(target, report.repeats)
    last_step = step + report.repeats - 1
    metrics = list(points(_report_metrics(report), last_step, made.created))
    for repeat, value in enumerate(_score_by_repeat(report)):
        metrics += points({"score/repeat": value}, step + repeat, made.created)
    said = {
        "name": report.name,
        "interval": f"{report.interval.method}, level {report.level:g}",
        "caveats": "; ".join(report.interval.caveats) or None,
        "advice": report.variance.advice,
        "changes": "; ".join(made.changes) or None,
    }
    comparison = _comparison(report)
    if comparison is not None:
        metrics += points(_delta_metrics(comparison), last_step, made.created)
        said |= {"baseline": comparison.baseline, "verdict": comparison.verdict_text}
    params = {
        "repeats": report.repeats,
        "level": report.level,
        "temperature": made.temperature,
        "temperature_lent": made.temperature_lent,
        **{f"versions.{name}": version for name, version in made.versions.items()},
    }
    tables = {
        artifact("rows", uid): table(_ROW, _rows(report)),
        **ledger_table(uid, made.counters.get("by", ())),
        **_trouble_table(uid, report.troubles),
        **_apart_table(uid, {"metric": report.metrics if made.others else {}, "slice": report.slices}),
    }
    return _outgoing(
        target,
        {**tables, **_figure(report, uid), **_page(report, uid)},
        uid=uid,
        started=milliseconds(made.created - made.seconds),
        ended=milliseconds(made.created),
        run_name=report.name,
        metrics=tuple(metrics),
        tags={**tags("eval", vars(made), **said), REPORT_TAG: digest(report)},
        params=named(params),
        tables=tuple(tables),
        dataset=Dataset(made.data[:36], report.n),
        children=tuple(children),
        model=program_model(report.name, vars(made)),
    )


def of_comparisons(
    comparisons: Comparisons,
    target: Target,
    *,
    looks: Sequence[Mapping[str, Any]] = (),
    settled: Mapping[str, Any] | None = None,
    paged: Paged | None = None,
) -> list[Outgoing]:
    """Return what is delivered of a comparison: each pair is a step, in the order of the table.

    Args:
        comparisons: The comparison.
        target: Where it goes.
        looks: The looks at it while it grew: each is a step too, and a row of a table.
        settled: What became of it then, which stands in the place of what it says by itself.
        paged: Whose page goes with it; None for that of its only pair.
    """
    uid, now, pairs = new_uid(), time.time(), comparisons.pairs
    step = first_step(target, max(len(pairs), len(looks)))
    metrics = [point for number, pair in enumerate(pairs) for point in points(_delta_metrics(pair), step + number, now)]
    metrics += points({"delta/selection_bias": comparisons.selection_bias}, step + len(pairs) - 1, now)
    said = {
        "verdict": "; ".join(
            f"{pair.candidate} against {pair.baseline}: {pair.verdict_text} ({pair.difference:+.4g})" for pair in pairs
        ),
        "warnings": "; ".join(warning for pair in pairs for warning in pair.warnings) or None,
        "best": comparisons.best,
    }
    names = [report.name for report in comparisons.reports]
    if len(pairs) == 1:
        said |= {"baseline": names[0], "candidate": names[1], "verdict": pairs[0].verdict_text}
    said |= settled or {}
    for number, look in enumerate(looks):
        seen = {f"look/{name}": value for name, value in look.items() if isinstance(value, (int, float))}
        metrics += points(seen, step + number, now)
    rows = [_pair_row(pair) for pair in pairs]
    tables = {artifact("compare", uid): table(list(rows[0]), (list(row.values()) for row in rows))}
    if looks:
        tables[artifact("looks", uid)] = table(list(looks[0]), (list(look.values()) for look in looks))
    parts = [
        {"of": of, "name": name, **_pair_row(part)}
        for pair in pairs
        for of, found in (("metric", pair.metrics), ("slice", pair.slices))
        for name, part in found.items()
    ]
    if parts:
        tables[artifact("apart", uid)] = table(list(parts[0]), (list(part.values()) for part in parts))
    outgoing = _outgoing(
        target,
        {**tables, **_figure(comparisons, uid), **(_page(paged or pairs[0], uid) if len(pairs) == 1 else {})},
        uid=uid,
        started=milliseconds(now),
        ended=milliseconds(now),
        run_name=" against ".join(reversed(names)) if len(names) == 2 else f"comparison of {len(names)}",
        metrics=tuple(metrics),
        tags=tags("compare", {}, **said),
        tables=tuple(tables),
        compares=tuple(map(digest, comparisons.reports)),
    )
    return [outgoing]


def _outgoing(target: Target, files: Mapping[str, bytes], *, uid: str, **content: Any) -> Outgoing:
    """Return a record with its files, of which it is one."""
    itself = artifact("record", uid)
    record = Record.to(target, uid=uid, artifacts=(*files, itself), **content)
    return Outgoing(record, {**files, itself: record.to_json()})


def _report_metrics(report: EvalReport) -> dict[str, float | None]:
    variance = report.variance
    return {
        "score/mean": report.score,
        "score/se": report.standard_error,
        "score/ci_low": report.interval.low,
        "score/ci_high": report.interval.high,
        "score/n": report.n,
        "score/k": report.repeats,
        "score/k_eff": report.distinct.effective,
        "score/distinct_draws": report.distinct.distinct,
        "score/known_draws": report.distinct.known,
        "score/failures": report.failures,
        "score/without_failures": report.score_without_failures,
        "score/leaked": len(report.leaked),
        "score/held_out": None if report.holdout is None else report.holdout.score,
        "score/candidates": None if report.provenance.selection is None else report.provenance.selection.candidates,
        "score/without_leaks": None if report.without_leaks is None else report.without_leaks.score,
        "score/clusters": report.error.clusters,
        "score/design_effect": report.error.design_effect,
        "score/flip_rate": report.flip_rate,
        "score/consistency": report.consistency,
        "var/within": variance.within,
        "var/between": variance.between,
        "var/share_within": variance.share_within,
        "var/limit_se": variance.limit_error,
        "cost/wall_s": report.provenance.seconds,
        **ledger_metrics(report.provenance.counters),
        **{f"trouble/{kind}": float(count) for kind, count in totals(report.troubles).items()},
        **_apart_metrics("metric", report.metrics if report.provenance.others else {}),
        **_apart_metrics("slice", report.slices),
    }


def _apart_metrics(what: str, parts: Mapping[str, EvalReport]) -> dict[str, float | None]:
    """Return the figures of what is looked at apart, under names that MLflow takes; of many the first."""
    found: dict[str, float | None] = {}
    for name, one in list(parts.items())[:_MOST_APART]:
        place = f"{what}/{_UNNAMED.sub('_', name)[:_LONGEST_NAME].strip('/. ') or '_'}"
        figures = {"mean": one.score, "ci_low": one.interval.low, "ci_high": one.interval.high, "n": float(one.n)}
        found |= {f"{place}/{figure}": value for figure, value in figures.items()}
    return found


def _apart_table(uid: str, parts: Mapping[str, Mapping[str, EvalReport]]) -> dict[str, bytes]:
    rows = [
        [of, name, one.n, one.score, one.standard_error, one.interval.low, one.interval.high, one.failures]
        for of, found in parts.items()
        for name, one in found.items()
    ]
    return {artifact("apart", uid): table(_APART, rows)} if rows else {}


def _delta_metrics(pair: Comparison) -> dict[str, float | None]:
    result = pair.result
    found = {
        "mean": result.difference,
        "se": result.error.value,
        "ci_low": result.interval.low,
        "ci_high": result.interval.high,
        "p": result.p_value,
        "p_adjusted": pair.adjusted_p_value,
        "mde": result.minimal_detectable_effect,
        "n": result.n,
        "wins": result.wins,
        "ties": result.ties,
        "losses": result.losses,
        "correlation": result.correlation,
        "baseline_mean": result.baseline_mean,
        "candidate_mean": result.candidate_mean,
        "shared_draws": pair.shared_draws,
    }
    return {f"delta/{name}": value for name, value in found.items()}


def _score_by_repeat(report: EvalReport) -> list[float]:
    return [
        sum(scores) / len(scores)
        for repeat in range(report.repeats)
        if (scores := [question.draws[repeat].score for question in report.questions if repeat < len(question.draws)])
    ]


def _comparison(report: EvalReport) -> Comparison | None:
    try:
        return report.comparison
    except ConfigurationError as error:  # the baseline is about other questions; the score stands without it
        logger.warning("%r is logged without its baseline: %s", report.name, error)
        return None


def _rows(report: EvalReport) -> Iterator[list[Any]]:
    for question in report.questions:
        about = [question.question, question.preview, question.cluster, "; ".join(question.slices)]
        for repeat, draw in enumerate(question.draws):
            others = json.dumps([asdict(one) for one in draw.others]) if draw.others else None
            said = [draw.score, draw.failed, draw.feedback, others]
            yield [*about, repeat, *said, *(getattr(draw, name) for name in _DRAWN)]


def _trouble_table(uid: str, troubles: Sequence[PredictorTrouble]) -> dict[str, bytes]:
    rows = [[*(getattr(one, name) for name in _TROUBLE[:-1]), json.dumps(one.as_dict()["where"])] for one in troubles]
    return {artifact("troubles", uid): table(_TROUBLE, rows)} if rows else {}


def _pair_row(pair: Comparison) -> dict[str, Any]:
    plain = pair.as_dict()
    interval, error, _, _ = (plain.pop(name) for name in ("interval", "error", "slices", "metrics"))
    plain |= {"ci_low": interval["low"], "ci_high": interval["high"], "interval": interval["method"]}
    plain |= {"standard_error": error["value"]}
    lists = {name: "; ".join(map(str, value)) for name, value in plain.items() if isinstance(value, tuple)}
    return {**plain, **lists}


def _figure(drawn: EvalReport | Comparisons, uid: str) -> dict[str, bytes]:
    try:
        image = io.BytesIO()
        drawn.plot().savefig(image, format="png")
        return {artifact("plot", uid, "png"): image.getvalue()}
    except MissingExtraError as error:
        logger.debug("no figure is logged: %s", error)
    except Exception as error:  # noqa: BLE001 - a figure is not worth a result
        logger.warning("no figure is logged, it cannot be drawn: %r", error)
    return {}


def _page(paged: Paged, uid: str) -> dict[str, bytes]:
    try:
        return {artifact("page", uid, "html"): document(paged.page(most=_MOST_TEXT))}
    except Exception as error:  # noqa: BLE001 - a page is not worth a result
        logger.warning("no page is logged, it cannot be made: %r", error)
        return {}
