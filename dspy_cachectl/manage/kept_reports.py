"""Reports out of files: those that were saved, and those that are made of kept predictions."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dspy_cachectl.accounting.asked import AskedModel, counted_together, facts
from dspy_cachectl.boundary import ownership
from dspy_cachectl.boundary.secrets import scrub_head
from dspy_cachectl.entries import values
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.manage.snapshots import find, metrics_of, read_rows
from dspy_cachectl.predictions.rows import PredictionRow
from dspy_cachectl.predictions.snapshot import SnapshotInfo, read_info
from dspy_cachectl.reports.apart.corpus import CORPUS
from dspy_cachectl.reports.apart.slices import names_of
from dspy_cachectl.reports.kept_texts import kept_rows, question_of
from dspy_cachectl.reports.measurement import MEASURE, Provenance
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.results import DrawResult, OtherMetric, OtherScore, QuestionResult
from dspy_cachectl.reports.texts import cut, plural, short

_PREVIEW = 80
_HEADS = (ownership.SNAPSHOT_HEAD, ownership.PACKED_SNAPSHOT_HEAD)


def reports_in(
    files: Sequence[str], predictions: str | Path, *, metric: str | None = None, slices: Sequence[str] = ()
) -> list[EvalReport]:
    """Return the reports that files hold, each by a name of its own.

    Args:
        files: Saved reports, or snapshots of predictions; these also by a name that `find` takes.
        predictions: The folder of the kept predictions: snapshots are looked for there, and those of saved reports.
        metric: By which metric: its name, or the beginning of its hash. None: of what was kept the last one, of a saved
            report the first.
        slices: By which fields the questions are sliced. They are in what was kept, of a saved report or of another one
            of the same questions.

    Raises:
        ConfigurationError: If something is no report and no snapshot, or no such metric has scored it, or a question
            lacks a field, or nothing was kept of it.
        StoreError: If a file cannot be read.
    """
    reports = [_report_in(file, predictions, metric) for file in files]
    if slices:
        reports = _sliced(reports, slices)
    names = Counter(report.name for report in reports)
    return [
        replace(report, name=f"{report.name} ({Path(file).stem})") if names[report.name] > 1 else report
        for file, report in zip(files, reports, strict=True)
    ]


def _sliced(reports: Sequence[EvalReport], fields: Sequence[str]) -> list[EvalReport]:
    """Return reports whose questions are sliced by fields of what was kept of any of them."""
    told: dict[str, tuple[str, ...]] = {}
    for report in reports:
        kept = {} if report.path is None else kept_rows(report.path)
        told |= {question: _slices_of(row, fields) for (question, _), row in kept.items() if question not in told}
    for report in reports:
        unknown = sum(question.question not in told for question in report.questions)
        if unknown:
            raise ConfigurationError(
                f"slices by {fields[0]!r} are taken from kept predictions, and of {plural(unknown, 'question')} of "
                f"{report.name!r} there are none: give the folder that has them, or leave it out: the slices that a "
                "report was made with are looked at as they are"
            )
    return [
        replace(report, questions=tuple(replace(one, slices=told[one.question]) for one in report.questions))
        for report in reports
    ]


def _report_in(file: str, predictions: str | Path, metric: str | None) -> EvalReport:
    path = Path(file)
    if not ownership.is_there(path):
        try:
            info = find(predictions, file)
        except ConfigurationError as error:
            raise ConfigurationError(f"no file is called {file!r}, and no snapshot either: {error}") from error
        return _of_snapshot(info, metric)
    if (ownership.beginning(path) or b"").startswith(_HEADS):
        return _of_snapshot(read_info(path), metric)
    report = EvalReport.load(path)
    if metric is not None:
        report = _by(report, metric, path)
    kept = Path(predictions) / (report.provenance.snapshot or "")
    return replace(report, path=str(kept)) if ownership.is_snapshot(kept, through_links=True) else report


def _by(report: EvalReport, metric: str, path: Path) -> EvalReport:
    """Return a saved report by one of its metrics."""
    made = report.provenance
    found = report.metrics if made.others else {made.metric: report}
    for name, one in found.items():
        if metric == name or one.provenance.metric_hash.startswith(metric):
            return one
    raise ConfigurationError(f"no metric {metric!r} has scored {path.name}; there are: {', '.join(found)}")


def _of_snapshot(info: SnapshotInfo, metric: str | None) -> EvalReport:
    kept = KeptReports(info)
    last = info.metadata.get("metric_hash")
    wanted = [one for one in kept.metrics if metric and (metric == kept.name_of(one) or one.startswith(metric))]
    if metric is None:
        wanted = [last] if last in kept.metrics else kept.metrics[:1]
    if not wanted:
        known = ", ".join(map(kept.name_of, kept.metrics)) or "none"
        raise ConfigurationError(f"no metric {metric or ''!r} has scored {info.path.name}; there are: {known}")
    return kept.report(wanted[0], f"{info.program} on {info.key.model.model}")


class KeptReports:
    """A snapshot with its rows, read once, and the reports that are made of them.

    Args:
        info: The snapshot.

    Attributes:
        info: See above.
        rows: Its rows.
        metrics: The hashes of the metrics that have judged them.

    Raises:
        StoreError: If it cannot be read.
    """

    def __init__(self, info: SnapshotInfo) -> None:
        self.info = info
        self.rows = list(read_rows(info.path))
        self.metrics = list(dict.fromkeys(metric for row in self.rows for metric in row.scores))
        self._found = metrics_of(info.path)

    def name_of(self, metric: str) -> str:
        """Return the name of a metric, where it is known, or what it measures, or the beginning of its hash."""
        named = [name for name, value in self._found.items() if _hash_in(value) == metric]
        if not named and metric.startswith(MEASURE):
            return metric.removeprefix(MEASURE)
        return named[0] if named else short(metric)

    def summary(self, metric: str) -> Mapping[str, Any]:
        """Return what its report said of a metric."""
        return next((value for value in self._found.values() if _hash_in(value) == metric), {})

    def report(self, metric: str, name: str) -> EvalReport:
        """Return the report of its rows, by a metric and those that judged the same answers with it.

        Args:
            metric: The metric's hash.
            name: What the report is called.
        """
        said, others = self.summary(metric), self._beside(metric)
        failure_score = float(said.get("failure_score") or 0.0)
        interval = said.get("interval")
        questions: defaultdict[tuple[str, int], list[PredictionRow]] = defaultdict(list)
        for row in self.rows:
            questions[row.example_key, row.occurrence].append(row)
        return EvalReport(
            name=name,
            questions=tuple(_question(rows, metric, others, failure_score) for rows in questions.values()),
            provenance=replace(self._provenance(metric, failure_score), others=others),
            level=float(interval["level"]) if isinstance(interval, dict) else 0.95,
            path=str(self.info.path),
        )

    def _beside(self, metric: str) -> tuple[OtherMetric, ...]:
        """Return the other metrics of the last evaluation, where it was one by this metric."""
        together = self.info.metadata.get("judged_by")
        hashes = [one for one in together if isinstance(one, str)] if isinstance(together, list) else []
        others = [one for one in hashes if one != metric and metric in hashes]
        return tuple(
            OtherMetric(self.name_of(one), one, self._judges(one))
            for one in others
            if one in self.metrics or one.startswith((MEASURE, CORPUS))
        )

    def _judges(self, metric: str) -> tuple[AskedModel, ...]:
        return counted_together(row.scores[metric].judges for row in self.rows if metric in row.scores)

    def _provenance(self, metric: str, failure_score: float) -> Provenance:
        info, metadata = self.info, self.info.metadata
        made = facts(one for row in self.rows for one in row.models)
        return Provenance(
            **{**made, "model": made["model"] or info.key.model.model},
            run_id=info.run_id,
            phase=str(metadata.get("phase", "")),
            policy=str(metadata.get("policy", "")),
            program=info.key.program.hash,
            data=info.key.dataset,
            metric=self.name_of(metric),
            metric_hash=metric,
            predictions="loaded",
            changes=(),
            snapshot=info.path.name,
            unsaved=0,
            counters={},
            seconds=0.0,
            created=info.saved,
            versions=_texts(metadata.get("versions")),
            program_text=_texts(metadata.get("program_text")),
            failure_score=failure_score,
            judges=self._judges(metric),
        )


def _texts(found: Any) -> dict[str, str]:
    return {str(name): str(text) for name, text in found.items()} if isinstance(found, Mapping) else {}


def _hash_in(found: Any) -> Any:
    return found.get("metric_hash") if isinstance(found, dict) else None


def _slices_of(row: PredictionRow, fields: Sequence[str]) -> tuple[str, ...]:
    example = {**row.reference, **row.inputs}
    missing = [field for field in fields if field not in example]
    if missing:
        known = ", ".join(map(repr, example))
        raise ConfigurationError(f"a kept question has no field {missing[0]!r} to take its slice from; it has {known}")
    return names_of(fields, example)


def _question(
    rows: Sequence[PredictionRow], metric: str, others: Sequence[OtherMetric], failure_score: float
) -> QuestionResult:
    first = rows[0]
    text = " · ".join(map(str, first.inputs.values()))
    return QuestionResult(
        question=question_of(first),
        preview=cut(scrub_head(text, _PREVIEW), _PREVIEW),
        draws=tuple(_draw(row, metric, others, failure_score) for row in sorted(rows, key=lambda row: row.repeat)),
        labels=next((row.scores[metric].label_key[:16] for row in rows if metric in row.scores), ""),
    )


def _said(row: PredictionRow, metric: str, failure_score: float) -> dict[str, Any]:
    """Return what a metric said of an answer, by the fields of a result."""
    score, failed = row.scores.get(metric), None
    if row.error is not None:
        failed = f"the program raised {row.error.kind}: {row.error.message}"
    elif score is None:
        failed = "the metric gave no score"
    return {
        "score": failure_score if failed or score is None else float(score.score),
        "failed": failed,
        "feedback": None if score is None else score.feedback,
    }


def _draw(row: PredictionRow, metric: str, others: Sequence[OtherMetric], failure_score: float) -> DrawResult:
    return DrawResult(
        **_said(row, metric, failure_score),
        others=tuple(
            OtherScore(one.metric, **_said(row, one.metric_hash, failure_score))
            for one in others
            if one.metric_hash in row.scores or row.error is not None
        ),
        draw="+".join(sorted(map(str, row.draws))),
        output="" if row.output is None else hashlib.sha256(values.dumps(vars(row.output))[0]).hexdigest()[:16],
        loaded=True,
        tokens=(row.prompt_tokens or 0) + (row.completion_tokens or 0),
        cached_tokens=row.cached_tokens or 0,
        cache_creation_tokens=row.cache_creation_tokens or 0,
        reasoning_tokens=row.reasoning_tokens or 0,
        cost=row.cost,
        seconds=row.seconds or 0.0,
        oldest=row.created,
        newest=row.created,
        troubles=row.troubles,
        spent=row.spent,
        strayed=row.strayed,
    )
