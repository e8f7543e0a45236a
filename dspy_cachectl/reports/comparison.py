"""Is one program better than another? Paired by question, with what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from dspy_cachectl import statistics as st
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.sheets import plural


@dataclass(frozen=True)
class Comparison:
    """A candidate against its baseline.

    Attributes:
        baseline: The baseline's name.
        candidate: The candidate's name.
        result: The numbers, for both and for their difference (see `statistics.PairedComparison`).
        adjusted_p_value: The p-value after allowing for the other comparisons made with it (Holm); the plain
            one where it was made alone.
        compared_with: How many comparisons were made together.
        shared_draws: How many draws both rest on; their luck is one.
        warnings: What stands in the way of trusting the comparison, in words.
        unpaired: The beginning of each question that only one of them has, by what identifies it.
        reports: The baseline's report and the candidate's.
    """

    baseline: str
    candidate: str
    result: st.PairedComparison
    adjusted_p_value: float
    compared_with: int = 1
    shared_draws: int = 0
    warnings: tuple[str, ...] = ()
    unpaired: Mapping[str, str] = field(default_factory=dict)
    reports: tuple[EvalReport, ...] = field(default=(), compare=False, repr=False)

    @property
    def difference(self) -> float:
        """Candidate minus baseline, over the questions that both have."""
        return self.result.difference

    @property
    def interval(self) -> st.Interval:
        """The confidence interval of the difference."""
        return self.result.interval

    @property
    def p_value(self) -> float:
        """The two-sided p-value of this comparison alone."""
        return self.result.p_value

    @property
    def verdict(self) -> st.Verdict:
        """BETTER, WORSE, NO DIFFERENCE or INCONCLUSIVE; a win among many has to survive Holm's adjustment."""
        won = self.result.verdict in {st.Verdict.BETTER, st.Verdict.WORSE}
        if won and self.compared_with > 1 and self.adjusted_p_value >= 1.0 - self.result.interval.level:
            return st.Verdict.INCONCLUSIVE
        return self.result.verdict

    @property
    def verdict_text(self) -> str:
        """The verdict in words, with the size of the difference that it is about."""
        return self.result.verdict_text if self.verdict is self.result.verdict else self.verdict.value

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain data."""
        result = self.result
        return {
            "baseline": self.baseline,
            "candidate": self.candidate,
            "n": result.n,
            "baseline_mean": result.baseline_mean,
            "candidate_mean": result.candidate_mean,
            "difference": result.difference,
            "standard_error": result.error.value,
            "interval": {"low": result.interval.low, "high": result.interval.high, "method": result.interval.method},
            "p_value": result.p_value,
            "adjusted_p_value": self.adjusted_p_value,
            "test": result.test,
            "correlation": result.correlation,
            "wins": result.wins,
            "ties": result.ties,
            "losses": result.losses,
            "minimal_detectable_effect": result.minimal_detectable_effect,
            "verdict": self.verdict_text,
            "needed": None if result.needed is None else result.needed.sentence,
            "only_baseline": list(result.only_baseline),
            "only_candidate": list(result.only_candidate),
            "shared_draws": self.shared_draws,
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        from dspy_cachectl.reports.render import comparison_text

        return comparison_text(self)

    def __rich__(self) -> Any:
        from dspy_cachectl.reports.render import comparison_panel

        return comparison_panel(self)

    def _repr_html_(self) -> str:
        from dspy_cachectl.reports.render import comparison_html

        return comparison_html(self)


@dataclass(frozen=True)
class Comparisons:
    """Several reports, each pair compared, with the multiplicity handled.

    Attributes:
        reports: The reports, in the order in which they were given.
        pairs: A comparison for each pair; the earlier report is the baseline.
    """

    reports: tuple[EvalReport, ...]
    pairs: tuple[Comparison, ...]

    @property
    def best(self) -> str:
        """The name of the report with the highest score. Its score is biased upward; see `selection_bias`."""
        return max(self.reports, key=lambda report: report.score).name

    @property
    def selection_bias(self) -> float:
        """By about how much the best of these scores is too high, in units of the score."""
        return st.selection_bias(max(report.standard_error for report in self.reports), len(self.reports))

    def __getitem__(self, names: tuple[str, str]) -> Comparison:
        for pair in self.pairs:
            if (pair.baseline, pair.candidate) == names:
                return pair
        known = ", ".join(repr(report.name) for report in self.reports)
        raise ConfigurationError(f"no comparison of {names!r}; name an earlier report, then a later one, of {known}")

    def plot(self, path: Any = None) -> Any:
        """Draw all scores with their intervals, and score against cost. Needs the `plots` extra."""
        from dspy_cachectl.reports.plots import plot_comparisons

        return plot_comparisons(self, path)

    def __str__(self) -> str:
        from dspy_cachectl.reports.render import comparisons_text

        return comparisons_text(self)

    def __rich__(self) -> Any:
        from dspy_cachectl.reports.render import comparisons_table

        return comparisons_table(self)

    def _repr_html_(self) -> str:
        from dspy_cachectl.reports.render import comparisons_html

        return comparisons_html(self)


def compare(
    reports: Mapping[str, EvalReport], *, smallest_difference: float = 0.05, level: float = 0.95
) -> Comparisons:
    """Compare several reports, each with each.

    The p-values are adjusted by Holm's method, since among many comparisons some win by luck.

    Args:
        reports: The reports by name; two at least.
        smallest_difference: The smallest difference that matters, in units of the score.
        level: The nominal coverage of the intervals.

    Raises:
        ConfigurationError: If there are fewer than two reports, or two of them have no question in common.
    """
    from dataclasses import replace

    if len(reports) < 2:
        raise ConfigurationError(f"compare() takes two reports at least, by name; got {len(reports)}")
    named = tuple(replace(report, name=name) for name, report in reports.items())
    pairs = [
        compare_two(one, other, smallest_difference=smallest_difference, level=level)
        for one, other in combinations(named, 2)
    ]
    adjusted = st.holm([pair.p_value for pair in pairs])
    return Comparisons(
        reports=named,
        pairs=tuple(
            replace(pair, adjusted_p_value=p_value, compared_with=len(pairs))
            for pair, p_value in zip(pairs, adjusted, strict=True)
        ),
    )


def compare_two(
    baseline: EvalReport, candidate: EvalReport, *, smallest_difference: float = 0.05, level: float = 0.95
) -> Comparison:
    """Compare a candidate with its baseline (see `EvalReport.compare`)."""
    result = st.compare_paired(baseline.table, candidate.table, smallest_difference=smallest_difference, level=level)
    shared = len(baseline.draw_ids & candidate.draw_ids)
    alone = {*result.only_baseline, *result.only_candidate}
    return Comparison(
        baseline=baseline.name,
        candidate=candidate.name,
        result=result,
        adjusted_p_value=result.p_value,
        shared_draws=shared,
        warnings=tuple(_warnings(baseline, candidate, result, shared)),
        unpaired={
            question.question: question.preview
            for report in (baseline, candidate)
            for question in report.questions
            if question.question in alone
        },
        reports=(baseline, candidate),
    )


def _warnings(baseline: EvalReport, candidate: EvalReport, result: st.PairedComparison, shared: int) -> list[str]:
    found = []
    if shared:
        found.append(
            f"the two share {plural(shared, 'draw')}: what they have in common says nothing about their difference. "
            "Evaluate one of them with a run id of its own"
        )
    for report in (baseline, candidate):
        if report.distinct.distinct < report.distinct.asked:
            found.append(f"{report.name}: {report.distinct.sentence}")
        if report.failures:
            found.append(f"{report.name}: {plural(report.failures, 'answer')} failed, counted with the failure score")
    if baseline.provenance.metric_hash != candidate.provenance.metric_hash:
        found.append("the two were scored with different metrics; rescore one of them")
    for name, missing in ((baseline.name, result.only_baseline), (candidate.name, result.only_candidate)):
        if missing:
            found.append(f"left out, since only {name!r} has them: {plural(len(missing), 'question')}, {_few(missing)}")
    return found


def _few(questions: tuple[str, ...]) -> str:
    shown = ", ".join(questions[:3])
    return shown if len(questions) <= 3 else f"{shown} and {len(questions) - 3} more"
