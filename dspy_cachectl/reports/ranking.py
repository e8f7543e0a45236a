"""Several models over the same questions, or several programs: which is good enough, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, overload

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.reports.apart.metrics import each_by_metric
from dspy_cachectl.reports.apart.tables import standings_by_metric
from dspy_cachectl.reports.caveats import bias_of_best, seen_before
from dspy_cachectl.reports.circumstances import MODELS_DIFFER
from dspy_cachectl.reports.comparison import Comparison, compare_two, together
from dspy_cachectl.reports.describe import MORE, scores_picture
from dspy_cachectl.reports.measurement import Measurement
from dspy_cachectl.reports.plots import plot_scores
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.several import Comparisons
from dspy_cachectl.reports.texts import (
    MISSING,
    ends_text,
    finite,
    frame,
    level_text,
    money,
    number,
    places,
    plural,
    score_text,
)
from dspy_cachectl.showing.render import Shown
from dspy_cachectl.showing.sheets import Cell, Giving, Part, Sheet, Tone, facts, notes, sheet
from dspy_cachectl.statistics.verdicts import Verdict

BEST, BASELINE, REFERENCE = "BEST", "BASELINE", "REFERENCE"
_IN_FULL = Giving(right=("n", "$/answer", "s/answer"), whole=("score", "interval"))
_SETTLING_SHOWN = 3
_BY_METRIC = ("n", "failures", "score", "low", "high", "difference", "p_value", "verdict")
_GIVE = replace(_IN_FULL, names=("model",))


@dataclass(frozen=True)
class Standing:
    """A row of a ranking. Scores are in the metric's own units.

    Attributes:
        name: Which report it is.
        n: The number of questions.
        repeats: How many answers there are to each.
        failures: How many answers failed.
        score: The score.
        low: Where its interval begins; None where that is not known.
        high: Where its interval ends; likewise.
        cost: US dollars that one answer is made of, whoever paid; None where a price is not known.
        seconds: Seconds of the provider that one answer is made of.
        difference: Its score less that of the reference, over the questions that both have; None for the reference.
        p_value: That of this difference, after allowing for all comparisons of the ranking (Holm); likewise.
        verdict: What the comparison with the reference says; BEST or BASELINE for the reference itself.
        metrics: The same by each metric that is known of it, where there are several, against the same reference; their
            p-values and verdicts allow for all comparisons by all metrics.
    """

    name: str
    n: int
    repeats: int
    failures: int
    score: float
    low: float | None
    high: float | None
    cost: float | None
    seconds: float
    difference: float | None
    p_value: float | None
    verdict: str
    metrics: Mapping[str, Standing] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranking(Shown, Sequence[EvalReport]):
    """Reports over the same questions, ranked: a sequence of them, in the order in which they were given.

    Each is compared with the best, or with a baseline where there is one. All verdicts hold together: against the best,
    which is chosen by its score, they are held to the number of all pairs.

    Attributes:
        reports: The reports. Their names are different ones.
        baseline: What they are compared with; None for the best of them.
        smallest_difference: The smallest difference that matters, in units of the score; None for a twentieth of the
            scale. It is that of the first metric: each other has a twentieth of its own scale.
        title: What is ranked; empty for their number.
        notes: What is to be said of the reports beside what they say themselves.
    """

    reports: tuple[EvalReport, ...]
    baseline: EvalReport | None = None
    smallest_difference: float | None = None
    title: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "reports", tuple(self.reports))
        names = [report.name for report in self.reports]
        if not names:
            raise ConfigurationError("a ranking is made of one report at least")
        if len(set(names)) < len(names):
            raise ConfigurationError(f"the reports of a ranking have different names, and these are {names}")

    @overload
    def __getitem__(self, which: int | str) -> EvalReport: ...

    @overload
    def __getitem__(self, which: slice) -> Sequence[EvalReport]: ...

    def __getitem__(self, which: int | str | slice) -> EvalReport | Sequence[EvalReport]:
        """Return the report at a place, in the order in which they were given, or of a name."""
        if not isinstance(which, str):
            return self.reports[which]
        for report in self.reports:
            if report.name == which:
                return report
        raise ConfigurationError(f"no report is called {which!r}; there are {[report.name for report in self]}")

    def __len__(self) -> int:
        return len(self.reports)

    def __repr__(self) -> str:
        return f"<Ranking of {len(self)}: {', '.join(f'{one.name} {one.score:.4g}' for one in self.rows)}>"

    @cached_property
    def best(self) -> EvalReport:
        """The report that scores highest, the cheaper of equals; on the questions that all have, if any."""
        return self._ordered[0]

    @property
    def reference(self) -> EvalReport:
        """What all are compared with: the baseline, or the best."""
        return self.best if self.baseline is None else self.baseline

    @cached_property
    def _ordered(self) -> tuple[EvalReport, ...]:
        """The reports, the best first."""
        means = [dict(zip(report.table.names, report.table.means, strict=True)) for report in self.reports]
        common = set.intersection(*map(set, means))
        scores = [
            math.fsum(rows[one] for one in common) / len(common) if common else report.score
            for report, rows in zip(self.reports, means, strict=True)
        ]
        # Of those that score the same the one known to be cheaper is the better, and the rest is settled by the name.
        keys = [
            (-score, _dear(report.cost_per_answer), report.name)
            for score, report in zip(scores, self.reports, strict=True)
        ]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        return tuple(self.reports[place] for place in order)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Each report against the reference, the best of them first, with what allows for their number.

        Raises:
            ConfigurationError: If one of them has no question in common with the reference.
        """
        ordered, level = self._ordered, max(report.level for report in self.reports)

        def of(one: Measurement, other: Measurement) -> Comparison:
            return compare_two(one, other, smallest_difference=self.smallest_difference, level=level)

        if self.baseline is not None:
            return together([of(self.baseline, report) for report in ordered if report is not self.baseline])
        # Which one is the best was seen from the scores: any pair might have been the one that is looked at.
        pairs = [of(one, other) for place, one in enumerate(ordered) for other in ordered[place + 1 :]]
        return together(pairs)[: len(ordered) - 1]

    @cached_property
    def rows(self) -> tuple[Standing, ...]:
        """The table: a row a report, the best first."""
        pairs = {pair.candidate: pair for pair in self.comparisons}
        itself = BEST if self.baseline is None else BASELINE
        found = []
        for place, one in enumerate(self._shown):
            pair = None if one is self.reference else pairs[one.name]
            others = {} if pair is None else pair.metrics
            said = REFERENCE if pair is None else MISSING
            known = {name: its for name, scored in self._by_metric.items() if (its := scored[place]) is not None}
            metrics = {name: _standing(its, others.get(name), said) for name, its in known.items()}
            found.append(replace(_standing(one, pair, itself), metrics=metrics))
        return tuple(found)

    @cached_property
    def _by_metric(self) -> Mapping[str, Sequence[EvalReport | None]]:
        return each_by_metric(self._shown)

    def compared(self) -> Comparisons:
        """Return the comparisons with the reference, as `compare` returns those of each with each."""
        others = (report for report in self._shown if report is not self.reference)
        return Comparisons((self.reference, *others), self.comparisons)

    @property
    def _shown(self) -> tuple[EvalReport, ...]:
        there = any(report is self.reference for report in self.reports)
        return self._ordered if there else (self.reference, *self._ordered)

    @cached_property
    def as_good(self) -> tuple[str, ...]:
        """The names of those that are as good as the reference, or better, as far as can be told; the cheapest first.

        Those without a known price come last. As good is what has NO DIFFERENCE OF SIZE d, the smallest that matters.
        """
        good = {Verdict.BETTER, Verdict.NO_DIFFERENCE}
        names = {pair.candidate for pair in self.comparisons if pair.verdict in good}
        return tuple(row.name for row in sorted(self.rows, key=lambda row: _dear(row.cost)) if row.name in names)

    def to_pandas(self) -> Any:
        """Return the table as a `pandas.DataFrame`; what stands there by a metric has its name behind a dot.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        rows = list(map(_as_columns, self.rows))
        return frame(rows, list(dict.fromkeys(name for row in rows for name in row)))

    def plot(self, path: Any = None) -> Any:
        """Draw all scores with their intervals, and score against cost. Needs the `plots` extra."""
        return plot_scores(self._ordered, path)

    def as_dict(self) -> dict[str, Any]:
        """Return the table and what is said of it as plain data."""
        return {
            "reference": self.reference.name,
            "best": self.best.name,
            "as_good": list(self.as_good),
            "rows": list(map(asdict, self.rows)),
            "comparisons": [pair.as_dict() for pair in self.comparisons],
            "selection_bias": finite(self._bias),
            "notes": list(self.notes),
        }

    @property
    def _bias(self) -> float:
        return bias_of_best(self.reports, len(self.reports))

    def _sheet(self) -> Sheet:
        return self._sheet_of([f"{pair.candidate}: {line}" for pair in self.comparisons for line in pair.settling()])

    def _brief(self) -> Sheet:
        settling = [f"{pair.candidate}: {line}" for pair in self.comparisons for line in pair.settling_briefly()]
        left = len(settling) - _SETTLING_SHOWN
        rest = [f"and {left:,} more of these"] if left > 0 else []
        return self._sheet_of([*settling[:_SETTLING_SHOWN], *rest], giving=_GIVE, more=MORE)

    def _sheet_of(self, settling: Sequence[str], *, giving: Giving = _IN_FULL, more: str = "") -> Sheet:
        best, pairs = self.best, self.comparisons
        counts = {report.n for report in self.reports}
        over = f"over {plural(counts.pop(), 'question')}" if len(counts) == 1 else "over different numbers of questions"
        score, ends = score_text(best.score, best.standard_error), ends_text(best.interval, best.standard_error)
        warnings = dict.fromkeys(
            said if said.startswith((f"{pair.baseline}: ", f"{pair.candidate}: ")) else f"{pair.title}: {said}"
            for pair in pairs
            for said in pair.warnings
            if not said.startswith(MODELS_DIFFER)
        )
        return sheet(
            f"{self.title or plural(len(self), 'report')} {over}",
            Cell(f"{best.name}: {score}, {level_text(best.interval)} interval {ends}"),
            notes("Caveats", seen_before(best)),
            Part(f"Against {self.reference.name}", tuple(self._table()), header=self._columns, giving=giving),
            self._metrics_part(briefly=bool(more)),
            facts("What is said", self._facts()),
            notes("Notes", self.notes),
            notes("What would settle them", settling),
            notes("Warnings", warnings),
            more=more,
            picture=scores_picture(self._shown),
        )

    @property
    def _columns(self) -> tuple[str, ...]:
        return (
            "model",
            "score",
            "interval",
            *(["n"] if self._counts_differ else []),
            "$/answer",
            "s/answer",
            "verdict",
        )

    @property
    def _counts_differ(self) -> bool:
        return len({row.n for row in self.rows}) > 1

    def _table(self) -> Iterator[tuple[Cell, ...]]:
        verdicts = {
            pair.candidate: Cell(pair.verdict.value.removesuffix(" OF SIZE"), pair.verdict_cell().tone)
            for pair in self.comparisons
        }
        for report, row in zip(self._shown, self.rows, strict=True):
            decimals = places(report.standard_error)
            verdict = verdicts[row.name] if row.difference is not None else Cell(row.verdict, Tone.LABEL)
            texts = [row.name, number(row.score, decimals), ends_text(report.interval, report.standard_error)]
            texts += [f"{row.n:,}"] if self._counts_differ else []
            texts += [money(row.cost), number(row.seconds) if row.seconds else MISSING]
            yield (*map(Cell, texts), verdict)

    def _metrics_part(self, *, briefly: bool) -> Part:
        pairs = {pair.candidate: pair.metrics for pair in self.comparisons}
        itself, unknown = Cell(REFERENCE, Tone.LABEL), Cell(MISSING)

        def said_of(report: EvalReport, metric: str) -> Cell:
            found = pairs.get(report.name, {}).get(metric)
            return itself if report is self.reference else unknown if found is None else found.verdict_cell()

        verdicts = {metric: [said_of(report, metric) for report in self._shown] for metric in self._by_metric}
        among = max((one.compared_with for found in pairs.values() for one in found.values()), default=0)
        names = [report.name for report in self._shown]
        return standings_by_metric(names, self._by_metric, verdicts, among, briefly=briefly)

    def _facts(self) -> Iterator[tuple[str, str]]:
        pairs = self.comparisons
        if pairs:
            said = [name if self[name].cost is not None else f"{name} (price not known)" for name in self.as_good]
            yield "as good, cheapest first", ", ".join(said) or "none, as far as can be told"
            yield "no difference", f"of size {pairs[0].result.smallest_difference:g}, the smallest that matters"
            alone = ", as if there were no other metric" if self._by_metric else ""
            yield "verdicts", f"hold together, among {plural(pairs[0].compared_with, 'comparison')}{alone}"
        if self.baseline is None and len(self) > 1 and math.isfinite(self._bias):
            bias = number(self._bias, places(self.best.standard_error))
            yield "best of several", f"may look too good by up to about {bias}: report its score on other questions"
        spent = [report.provenance.counters for report in self.reports]
        if any(spent):
            requests, cost = (sum(one.get(name, 0) for one in spent) for name in ("requests", "cost_spent"))
            unpriced = sum(one.get("unpriced", 0) for one in spent)
            unknown = f", {plural(unpriced, 'request')} without a known price" if unpriced else ""
            yield "spent", f"{plural(requests, 'request')}, {money(cost)}{unknown}"


def _dear(cost: float | None) -> float:
    """Return what is sorted by: what has no known price is never the cheapest."""
    return math.inf if cost is None else cost


def _as_columns(row: Standing) -> dict[str, Any]:
    found = asdict(row)
    for metric, one in found.pop("metrics").items():
        found |= {f"{name}.{metric}": one[name] for name in _BY_METRIC}
    return found


def _standing(report: EvalReport, pair: Comparison | None, itself: str) -> Standing:
    draws = report.draws
    return Standing(
        name=report.name,
        n=report.n,
        repeats=report.repeats,
        failures=report.failures,
        score=report.score,
        low=finite(report.interval.low),
        high=finite(report.interval.high),
        cost=report.cost_per_answer,
        seconds=math.fsum(draw.seconds for draw in draws) / len(draws),
        difference=None if pair is None else pair.difference,
        p_value=None if pair is None else finite(pair.adjusted_p_value),
        verdict=itself if pair is None else pair.verdict_text,
    )
