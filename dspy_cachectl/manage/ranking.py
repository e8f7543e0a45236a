"""All that is kept of one data set, ranked without a request: a report of each snapshot, made of its rows.

Nothing is compared that was scored by different metrics, and nothing is left out without a word.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dspy_cachectl.errors import ConfigurationError, CorruptEntryError, MissingExtraError
from dspy_cachectl.manage.kept_reports import KeptReports
from dspy_cachectl.manage.snapshots import find, nothing_in, snapshots_in
from dspy_cachectl.predictions.snapshot import SnapshotInfo
from dspy_cachectl.reports.ranking import Ranking
from dspy_cachectl.reports.report import EvalReport
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
    root: str | Path,
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
    kept = {}
    for info in chosen:
        try:
            kept[info.path] = KeptReports(info)
        except CorruptEntryError as error:
            notes += (f"damaged and left out: {error}",)
    chosen = [info for info in chosen if info.path in kept]
    if reference is not None and reference not in kept:
        raise ConfigurationError(f"{reference.name} is damaged, and nothing is compared with it: evaluate again")
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


def _of_data(
    root: str | Path, found: Sequence[SnapshotInfo], data: str | None, against: str | None
) -> list[SnapshotInfo]:
    if not found:
        raise ConfigurationError(nothing_in(root))
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


def _is_named(wanted: str | None, metric: str, kept: Iterable[KeptReports]) -> bool:
    if wanted is None:
        return True
    names = {snapshot.name_of(metric) for snapshot in kept if metric in snapshot.metrics}
    return wanted in names or bool(wanted and metric.startswith(wanted))


def _ranked(
    metric: str,
    kept: Mapping[Path, KeptReports],
    names: Mapping[Path, str],
    *,
    reference: Path | None,
    smallest_difference: float | None,
    notes: tuple[str, ...],
) -> KeptRanking:
    scored = {path: snapshot for path, snapshot in kept.items() if metric in snapshot.metrics}
    if reference is not None and reference not in scored:
        raise ConfigurationError(f"{reference.name} has no score by the metric {short(metric)}; name it with --metric")
    reports = {path: _alone(snapshot.report(metric, names[path])) for path, snapshot in scored.items()}
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


def _alone(report: EvalReport) -> EvalReport:
    """Return a report without its other metrics, which have rankings of their own."""
    return replace(report, provenance=replace(report.provenance, others=()))


def _clusters(report: EvalReport, said: Mapping[str, Any]) -> str:
    """Say where an evaluation knew of clusters that its kept predictions do not tell."""
    known = said.get("clusters")
    if not isinstance(known, int) or known == report.error.clusters:
        return ""
    return (
        f"{report.name} was evaluated with {plural(known, 'cluster')}, which kept predictions do not tell: its "
        "interval here, and each comparison, is too narrow. Compare the reports: cachectl.Ranking([...])"
    )


def _labels(chosen: Sequence[SnapshotInfo]) -> list[str]:
    """Return a name for each snapshot: its model, and what else it takes to tell it from the others."""
    labels = [info.key.model.model for info in chosen]
    for facts in map(_facts, chosen), map(_options, chosen), map(_file, chosen):
        told = list(facts)
        of_label: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
        for label, fact in zip(labels, told, strict=True):
            of_label[label].append(fact)
        labels = [
            " ".join([label, *(text for name, text in fact.items() if text and _differs(name, of_label[label]))])
            for label, fact in zip(labels, told, strict=True)
        ]
    return labels


def _differs(name: str, facts: Sequence[Mapping[str, str]]) -> bool:
    return len({fact.get(name) for fact in facts}) > 1


def _facts(info: SnapshotInfo) -> dict[str, str]:
    model, program = info.key.model, info.key.program.hash[:6]
    named = "" if info.program == info.key.program.hash[:12] else f"{info.program} "
    return {
        "endpoint": f"@ {model.endpoint or 'the provider'}",
        "version": model.version or "",
        "program": f"{named}{program}",
    }


def _options(info: SnapshotInfo) -> dict[str, str]:
    options = sorted(info.key.generation.items())
    return {name: f"{name}={value}" for name, value in options if isinstance(value, (str, int, float))}


def _file(info: SnapshotInfo) -> dict[str, str]:
    return {"file": info.path.name.rpartition("_")[2][:8]}
