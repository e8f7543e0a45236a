"""What is logged of reports and comparisons, and under which names. Pure, but for the uid and the figures."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspy_cachectl._version import __version__
from dspy_cachectl.entries.secrets import scrub
from dspy_cachectl.errors import ConfigurationError, MissingExtraError
from dspy_cachectl.tracking.outgoing import (
    PREFIX,
    PROVENANCE_TAGS,
    Outgoing,
    artifact,
    ledger_metrics,
    ledger_table,
    milliseconds,
    named,
    program_model,
    table,
)
from dspy_cachectl.tracking.record import REPORT_TAG, Dataset, Point, Record, new_uid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dspy_cachectl.reports.comparison import Comparison, Comparisons
    from dspy_cachectl.reports.measurement import Measurement
    from dspy_cachectl.reports.report import EvalReport
    from dspy_cachectl.tracking.resolve import Target

logger = logging.getLogger(__name__)

_DRAWN = ("draw", "output", "loaded", "requests", "tokens", "cost", "seconds", "oldest", "newest")
_ROW = ("question", "preview", "cluster", "repeat", "score", "failed", *_DRAWN)
"""The columns of the table with a row a draw."""


def digest(report: Measurement) -> str:
    """Return what tells a report from any other, whatever it is called."""
    made = json.dumps(asdict(report.provenance), sort_keys=True, default=str)
    # The results are frozen values of texts and numbers, of which the plain text is as good and many times as fast.
    return hashlib.sha256(f"{made}{report.questions!r}".encode()).hexdigest()[:32]


def of_report(report: EvalReport, target: Target, *, first_step: int, children: Sequence[str] = ()) -> Outgoing:
    """Return what is delivered of a report: each repeat is a step, and the totals stand at the last one.

    Args:
        report: The report.
        target: Where it goes.
        first_step: The step of its first repeat.
        children: Runs that are shown below its own.
    """
    made = report.provenance
    uid, ended = new_uid(), milliseconds(made.created)
    last_step = first_step + report.repeats - 1
    points = [Point(f"{PREFIX}/{key}", value, ended, last_step) for key, value in _report_metrics(report)]
    points += [
        Point(f"{PREFIX}/score/repeat", value, ended, first_step + repeat)
        for repeat, value in enumerate(_score_by_repeat(report))
    ]
    tags = {
        "version": __version__,
        "kind": "eval",
        "name": report.name,
        "interval": f"{report.interval.method}, level {report.level:g}",
        "caveats": "; ".join(report.interval.caveats) or None,
        "advice": report.variance.advice,
        "changes": "; ".join(made.changes) or None,
        **{name: getattr(made, source) for name, source in PROVENANCE_TAGS.items()},
    }
    comparison = _comparison(report)
    if comparison is not None:
        points += [Point(f"{PREFIX}/delta/{key}", value, ended, last_step) for key, value in _delta_metrics(comparison)]
        tags |= {"baseline": comparison.baseline, "verdict": comparison.verdict_text}
    params = {
        "repeats": report.repeats,
        "level": report.level,
        "temperature": made.temperature,
        "temperature_lent": made.temperature_lent,
        **{f"versions.{name}": version for name, version in made.versions.items()},
    }
    rows = artifact("rows", uid)
    ledger = ledger_table(uid, made.counters.get("by", ()))
    files = {rows: table(_ROW, _rows(report)), **ledger, **_figure(report, uid)}
    record = Record.to(
        target,
        uid=uid,
        started=milliseconds(made.created - made.seconds),
        ended=ended,
        run_name=report.name,
        metrics=tuple(points),
        tags={**named(tags), REPORT_TAG: digest(report)},
        params=named(params),
        artifacts=(*files, artifact("record", uid)),
        tables=(rows, *ledger),
        dataset=Dataset("devset", made.data[:36], report.n),
        children=tuple(children),
        model=program_model(report.name, vars(made)),
    )
    return _with_itself(record, files)


def of_comparisons(compared: Comparison | Comparisons, target: Target, *, first_step: int) -> Outgoing:
    """Return what is delivered of a comparison: each pair is a step, in the order of the table."""
    comparisons = _as_comparisons(compared)
    uid, now = new_uid(), milliseconds(time.time())
    points = [
        Point(f"{PREFIX}/delta/{key}", value, now, first_step + number)
        for number, pair in enumerate(comparisons.pairs)
        for key, value in _delta_metrics(pair)
    ]
    tags = {
        "version": __version__,
        "kind": "compare",
        "verdict": "; ".join(map(_verdict, comparisons.pairs)),
        "warnings": "; ".join(warning for pair in comparisons.pairs for warning in pair.warnings) or None,
    }
    if comparisons.reports:
        last_step = first_step + len(comparisons.pairs) - 1
        points.append(Point(f"{PREFIX}/delta/selection_bias", comparisons.selection_bias, now, last_step))
        tags["best"] = comparisons.best
    if len(comparisons.pairs) == 1:
        (pair,) = comparisons.pairs
        tags |= {"baseline": pair.baseline, "candidate": pair.candidate, "verdict": pair.verdict_text}
    compared_pairs = artifact("compare", uid)
    pairs = [_pair_row(pair) for pair in comparisons.pairs]
    files = {compared_pairs: table(list(pairs[0]), (list(pair.values()) for pair in pairs))}
    if comparisons.reports:
        files |= _figure(comparisons, uid)
    names = list(dict.fromkeys(name for pair in comparisons.pairs for name in (pair.baseline, pair.candidate)))
    record = Record.to(
        target,
        uid=uid,
        started=now,
        ended=now,
        run_name=" against ".join(reversed(names)) if len(names) == 2 else f"comparison of {len(names)}",
        metrics=tuple(points),
        tags=named(tags),
        artifacts=(*files, artifact("record", uid)),
        tables=(compared_pairs,),
        compares=tuple(digest(report) for report in comparisons.reports),
    )
    return _with_itself(record, files)


def _with_itself(record: Record, files: Mapping[str, bytes]) -> Outgoing:
    return Outgoing(record, {**files, artifact("record", record.uid): record.to_json()})


def _report_metrics(report: EvalReport) -> Iterator[tuple[str, float]]:
    variance, counters = report.variance, report.provenance.counters
    found = {
        "score/mean": report.score,
        "score/se": report.standard_error,
        "score/ci_low": report.interval.low,
        "score/ci_high": report.interval.high,
        "score/n": report.n,
        "score/k": report.repeats,
        "score/k_eff": report.distinct.effective,
        "score/distinct_draws": report.distinct.distinct,
        "score/failures": report.failures,
        "score/without_failures": report.score_without_failures,
        "score/clusters": report.error.clusters,
        "score/design_effect": report.error.design_effect,
        "score/flip_rate": report.flip_rate,
        "score/consistency": report.consistency,
        "var/within": variance.within,
        "var/between": variance.between,
        "var/share_within": variance.share_within,
        "var/limit_se": variance.limit_error,
        "cost/wall_s": report.provenance.seconds,
        **dict(ledger_metrics(counters)),
    }
    yield from _present(found)


def _delta_metrics(pair: Comparison) -> Iterator[tuple[str, float]]:
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
    yield from _present(found)


def _present(values: Mapping[str, float | None]) -> Iterator[tuple[str, float]]:
    return ((key, float(value)) for key, value in values.items() if value is not None)


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


def _as_comparisons(compared: Comparison | Comparisons) -> Comparisons:
    from dspy_cachectl.reports.comparison import Comparison, Comparisons

    return Comparisons(compared.reports, (compared,)) if isinstance(compared, Comparison) else compared


def _verdict(pair: Comparison) -> str:
    return f"{pair.candidate} against {pair.baseline}: {pair.verdict_text} ({pair.difference:+.4g})"


def _rows(report: EvalReport) -> Iterator[list[Any]]:
    for question in report.questions:
        about = [question.question, scrub(question.preview), question.cluster]
        for repeat, draw in enumerate(question.draws):
            failed = None if draw.failed is None else scrub(draw.failed)
            yield [*about, repeat, draw.score, failed, *(getattr(draw, name) for name in _DRAWN)]


def _pair_row(pair: Comparison) -> dict[str, Any]:
    plain = pair.as_dict()
    interval, error = plain.pop("interval"), plain.pop("error")
    plain |= {"ci_low": interval["low"], "ci_high": interval["high"], "interval": interval["method"]}
    plain |= {"standard_error": error["value"]}
    lists = {name: "; ".join(map(scrub, value)) for name, value in plain.items() if isinstance(value, tuple)}
    return {**plain, **lists}


def _figure(drawn: EvalReport | Comparisons, uid: str) -> dict[str, bytes]:
    name = artifact("plot", uid, "png")
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "plot.png"
            drawn.plot(path)
            return {name: path.read_bytes()}
    except MissingExtraError as error:
        logger.debug("no figure is logged: %s", error)
    except Exception as error:  # noqa: BLE001 - a figure is not worth a result
        logger.warning("no figure is logged, it cannot be drawn: %r", error)
    return {}
