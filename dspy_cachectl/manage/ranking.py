"""All that is kept of one data set, ranked without a request: a report of each snapshot, made of its rows.

Nothing is compared that was scored by different metrics, and nothing is left out without a word.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dspy_cachectl.accounting.asked import facts
from dspy_cachectl.boundary.secrets import scrub_head
from dspy_cachectl.entries import values
from dspy_cachectl.errors import ConfigurationError, MissingExtraError
from dspy_cachectl.manage.snapshots import find, metrics_of, read_rows, snapshots_in
from dspy_cachectl.predictions.rows import PredictionRow
from dspy_cachectl.predictions.snapshot import SnapshotInfo
from dspy_cachectl.reports.kept_texts import question_of
from dspy_cachectl.reports.measurement import Provenance
from dspy_cachectl.reports.ranking import Ranking
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.results import DrawResult, QuestionResult
from dspy_cachectl.reports.texts import cut, plural, short

_PREVIEW = 80
_LISTED = 10


@dataclass(frozen=True)
class KeptRanking:
    """What is kept of one data set and was scored by one metric.

    Attributes:
        data: The hash of the data set.
        metric: The metric's name.
        metric_hash: The metric's hash.
        snapshots: The file names of the snapshots, in the order of the ranking's reports.
        ranking: The ranking.
    """

    data: str
    metric: str
    metric_hash: str
    snapshots: tuple[str, ...]
    ranking: Ranking

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        said = {name: value for name, value in vars(self).items() if name != "ranking"}
        return {**said, **self.ranking.as_dict()}


def rank(
    root: Path,
    *,
    data: str | None = None,
    metric: str | None = None,
    against: str | None = None,
    smallest_difference: float | None = None,
) -> list[KeptRanking]:
    """Rank what is kept of a data set, for each metric that scored it; the one that scored the most first.

    Of several runs of the same model, program and options the newest that was finished counts.

    Args:
        root: The folder of the predictions.
        data: Which data set: the beginning of its hash, or of the name or run of a snapshot of it. None: the only one.
        metric: Which metric: its name, or the beginning of its hash. None: each.
        against: The snapshot that all are compared with, which tells the data set too; None for the best.
        smallest_difference: The smallest difference that matters; None for a twentieth of the scale.

    Raises:
        ConfigurationError: If there is no such data set, metric or snapshot, or there are several.
        MissingExtraError: If scipy is not installed.
        StoreError: If a snapshot cannot be read.
    """
    if find_spec("scipy") is None:
        raise MissingExtraError("predictions rank", extra="stats")
    there = _of_data(root, snapshots_in(root), data, against)
    reference = None if against is None else find(root, against, among=there).path
    chosen, notes = _chosen(there, reference)
    if reference is not None and reference not in {info.path for info in chosen}:
        raise ConfigurationError(f"{reference.name} is unfinished, and nothing is compared with it: evaluate again")
    kept = {info.path: _Kept(info) for info in chosen}
    found = Counter(one for snapshot in kept.values() for one in snapshot.metrics)
    wanted = [one for one, _ in found.most_common() if _is_named(metric, one, kept.values())]
    if not wanted:
        known = ", ".join(sorted({snapshot.name_of(one) for snapshot in kept.values() for one in snapshot.metrics}))
        raise ConfigurationError(f"no metric {metric or ''!r} has scored them; there are: {known or 'none'}")
    names = dict(zip(kept, _labels(chosen), strict=True))
    return [
        _ranked(one, kept, names, reference=reference, smallest_difference=smallest_difference, notes=notes)
        for one in wanted
    ]


def _of_data(root: Path, found: Sequence[SnapshotInfo], data: str | None, against: str | None) -> list[SnapshotInfo]:
    if not found:
        raise ConfigurationError(f"no predictions are kept in {str(root)!r}")
    hashes = list(dict.fromkeys(info.key.dataset for info in found))
    wanted = hashes
    if data is None and against is not None and len(hashes) > 1:
        wanted = [find(root, against).key.dataset]
    elif data is not None:
        wanted = [one for one in hashes if data and one.startswith(data)] or [find(root, data).key.dataset]
    if len(wanted) > 1:
        listed = "".join(f"\n  {_described(one, found)}" for one in wanted[:_LISTED])
        more = f"\n  and {len(wanted) - _LISTED:,} more" if len(wanted) > _LISTED else ""
        raise ConfigurationError(
            f"predictions of {len(wanted):,} data sets are kept; name one by the beginning of its hash, or by a "
            f"snapshot of it:{listed}{more}"
        )
    return [info for info in found if info.key.dataset == wanted[0]]


def _described(data: str, found: Sequence[SnapshotInfo]) -> str:
    of_it = [info for info in found if info.key.dataset == data]
    count = plural(int(of_it[0].metadata.get("questions") or of_it[0].rows), "question")
    return f"{short(data)}: {count}, {plural(len(of_it), 'snapshot')}, {cut(of_it[0].path.name, _PREVIEW)}"


def _chosen(there: Sequence[SnapshotInfo], reference: Path | None) -> tuple[list[SnapshotInfo], tuple[str, ...]]:
    """Return the snapshots that are ranked, the newest first, and what is to be said of the others."""
    whole = [info for info in there if info.is_complete]
    if not whole:
        names = ", ".join(info.path.name for info in there[:_LISTED])
        raise ConfigurationError(
            f"no evaluation of these data was finished: {names}. Evaluate again; it goes on from there"
        )
    newest: dict[Any, SnapshotInfo] = {}
    for info in sorted(whole, key=lambda info: info.path != reference):
        newest.setdefault(info.metadata.get("hash"), info)
    chosen = [info for info in whole if info in newest.values()]
    notes = []
    if older := len(whole) - len(chosen):
        notes.append(f"{plural(older, 'other run')} of the same model, program and options left out")
    unfinished = [info for info in there if not info.is_complete]
    notes += [f"unfinished and left out: {info.path.name}" for info in unfinished]
    return chosen, tuple(notes)


class _Kept:
    """A snapshot with its rows, read once."""

    def __init__(self, info: SnapshotInfo) -> None:
        self.info = info
        self.rows = list(read_rows(info.path))
        self.metrics = list(dict.fromkeys(metric for row in self.rows for metric in row.scores))
        self._found = metrics_of(info.path)

    def name_of(self, metric: str) -> str:
        """Return the name of a metric, where it is known, or the beginning of its hash."""
        named = [name for name, value in self._found.items() if _hash_in(value) == metric]
        return named[0] if named else short(metric)

    def summary(self, metric: str) -> Mapping[str, Any]:
        """Return what its report said of a metric."""
        return next((value for value in self._found.values() if _hash_in(value) == metric), {})

    def report(self, metric: str, name: str) -> EvalReport:
        """Return the report of its rows."""
        said = self.summary(metric)
        failure_score = float(said.get("failure_score") or 0.0)
        interval = said.get("interval")
        questions: defaultdict[tuple[str, int], list[PredictionRow]] = defaultdict(list)
        for row in self.rows:
            questions[row.example_key, row.occurrence].append(row)
        return EvalReport(
            name=name,
            questions=tuple(_question(rows, metric, failure_score) for rows in questions.values()),
            provenance=self._provenance(metric, failure_score),
            level=float(interval["level"]) if isinstance(interval, dict) else 0.95,
            path=str(self.info.path),
        )

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
            failure_score=failure_score,
        )


def _hash_in(found: Any) -> Any:
    return found.get("metric_hash") if isinstance(found, dict) else None


def _is_named(wanted: str | None, metric: str, kept: Iterable[_Kept]) -> bool:
    if wanted is None:
        return True
    names = {snapshot.name_of(metric) for snapshot in kept if metric in snapshot.metrics}
    return wanted in names or bool(wanted and metric.startswith(wanted))


def _ranked(
    metric: str,
    kept: Mapping[Path, _Kept],
    names: Mapping[Path, str],
    *,
    reference: Path | None,
    smallest_difference: float | None,
    notes: tuple[str, ...],
) -> KeptRanking:
    scored = {path: snapshot for path, snapshot in kept.items() if metric in snapshot.metrics}
    if reference is not None and reference not in scored:
        raise ConfigurationError(f"{reference.name} has no score by the metric {short(metric)}; name it with --metric")
    reports = {path: snapshot.report(metric, names[path]) for path, snapshot in scored.items()}
    name = next(iter(scored.values())).name_of(metric)
    said = [f"no score by this metric, and left out: {names[path]}" for path in kept if path not in scored]
    said += [_clusters(reports[path], snapshot.summary(metric)) for path, snapshot in scored.items()]
    return KeptRanking(
        data=next(iter(kept.values())).info.key.dataset,
        metric=name,
        metric_hash=metric,
        snapshots=tuple(path.name for path in scored),
        ranking=Ranking(
            tuple(reports.values()),
            baseline=None if reference is None else reports[reference],
            smallest_difference=smallest_difference,
            title=f"{plural(len(reports), 'snapshot')}, scored by {name} {short(metric)},",
            notes=(*notes, *filter(None, said)),
        ),
    )


def _clusters(report: EvalReport, said: Mapping[str, Any]) -> str:
    """Say where an evaluation knew of clusters that its kept predictions do not tell."""
    known = said.get("clusters")
    if not isinstance(known, int) or known == report.error.clusters:
        return ""
    return (
        f"{report.name} was evaluated with {plural(known, 'cluster')}, which kept predictions do not tell: its "
        "interval here, and each comparison, is too narrow. Compare the reports: cachectl.Ranking([...])"
    )


def _question(rows: Sequence[PredictionRow], metric: str, failure_score: float) -> QuestionResult:
    first = rows[0]
    text = " · ".join(map(str, first.inputs.values()))
    return QuestionResult(
        question=question_of(first),
        preview=cut(scrub_head(text, _PREVIEW), _PREVIEW),
        draws=tuple(_draw(row, metric, failure_score) for row in sorted(rows, key=lambda row: row.repeat)),
        labels=next((row.scores[metric].label_key[:16] for row in rows if metric in row.scores), ""),
    )


def _draw(row: PredictionRow, metric: str, failure_score: float) -> DrawResult:
    score, failed = row.scores.get(metric), None
    if row.error is not None:
        failed = f"the program raised {row.error.kind}: {row.error.message}"
    elif score is None:
        failed = "the metric gave no score"
    return DrawResult(
        score=failure_score if failed or score is None else float(score.score),
        failed=failed,
        feedback=None if score is None else score.feedback,
        draw="+".join(sorted(map(str, row.draws))),
        output="" if row.output is None else hashlib.sha256(values.dumps(vars(row.output))[0]).hexdigest()[:16],
        loaded=True,
        tokens=(row.prompt_tokens or 0) + (row.completion_tokens or 0),
        cached_tokens=row.cached_tokens or 0,
        cache_creation_tokens=row.cache_creation_tokens or 0,
        reasoning_tokens=row.reasoning_tokens or 0,
        cost=row.cost or 0.0,
        seconds=row.seconds or 0.0,
        oldest=row.created,
        newest=row.created,
        troubles=row.troubles,
        strayed=row.strayed,
    )


def _labels(chosen: Sequence[SnapshotInfo]) -> list[str]:
    """Return a name for each snapshot: its model, and what else it takes to tell it from the others."""
    labels = [info.key.model.model for info in chosen]
    for tell in (_told_by_program, _told_by_generation, lambda info: info.path.name.rpartition("_")[2][:8]):
        counts = Counter(labels)
        of_name: defaultdict[str, set[str]] = defaultdict(set)
        for label, info in zip(labels, chosen, strict=True):
            of_name[label].add(tell(info))
        labels = [
            f"{label} {tell(info)}" if counts[label] > 1 and len(of_name[label]) > 1 else label
            for label, info in zip(labels, chosen, strict=True)
        ]
    return labels


def _told_by_program(info: SnapshotInfo) -> str:
    return f"{info.program} {info.key.program.hash[:6]}" if info.program != info.key.program.hash[:12] else info.program


def _told_by_generation(info: SnapshotInfo) -> str:
    return " ".join(f"{name}={value}" for name, value in _options(info.key.generation))


def _options(generation: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in sorted(generation.items()):
        if isinstance(value, (str, int, float)):
            yield name, value
