"""Is one program better than another, or one of several the best? Paired by question, with what it rests on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from dspy_cachectl.entries.draw_tokens import Draws
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.page.content import Page
from dspy_cachectl.page.transcript import transcript
from dspy_cachectl.reports.apart.changes import ChangedQuestion, changed_between, command_for
from dspy_cachectl.reports.apart.metrics import paired_metrics
from dspy_cachectl.reports.apart.slices import paired_slices
from dspy_cachectl.reports.apart.tables import difference_parts
from dspy_cachectl.reports.circumstances import warnings_of
from dspy_cachectl.reports.describe import MORE, unpaired_rows
from dspy_cachectl.reports.difference import (
    difference_cells,
    difference_picture,
    difference_rows,
    further_rows,
    settling_briefly,
    why_undecided,
)
from dspy_cachectl.reports.kept_texts import Readable
from dspy_cachectl.reports.measurement import Measurement
from dspy_cachectl.reports.paged import MOST_TEXT, Paged, page_of, score_row
from dspy_cachectl.reports.plots import plot_scores
from dspy_cachectl.reports.texts import p_value
from dspy_cachectl.showing.render import Shown
from dspy_cachectl.showing.sheets import Cell, Part, Sheet, Tone, facts, notes, sheet
from dspy_cachectl.showing.stand_in import passes_on
from dspy_cachectl.statistics.intervals import Interval
from dspy_cachectl.statistics.paired import compare_paired, is_even_among
from dspy_cachectl.statistics.power import holm
from dspy_cachectl.statistics.verdicts import PairedComparison, Verdict

TONES = {
    Verdict.BETTER: Tone.GOOD,
    Verdict.WORSE: Tone.BAD,
    Verdict.NO_DIFFERENCE: Tone.EVEN,
    Verdict.INCONCLUSIVE: Tone.UNSURE,
}
"""How each verdict is meant."""


@dataclass(frozen=True)
class Comparison(Shown, Paged):
    """A candidate against its baseline.

    Attributes:
        baseline: The baseline's name.
        candidate: The candidate's name.
        result: The numbers, for both and for their difference (see `PairedComparison`).
        adjusted_p_value: The p-value after allowing for the other comparisons made with it (Holm); the plain
            one where it was made alone.
        compared_with: How many comparisons were made together.
        is_even_among_all: Whether NO DIFFERENCE can be said after allowing for them (Bonferroni).
        shared_draws: How many draws both rest on; their luck is one.
        warnings: What stands in the way of trusting the comparison, in words.
        unpaired: The beginning of each question that only one of them has, by what identifies it.
        reports: The baseline's report and the candidate's.
    """

    baseline: str
    candidate: str
    result: PairedComparison
    adjusted_p_value: float
    compared_with: int = 1
    is_even_among_all: bool = True
    shared_draws: int = 0
    warnings: tuple[str, ...] = ()
    unpaired: Mapping[str, str] = field(default_factory=dict)
    reports: tuple[Measurement, ...] = field(default=(), compare=False, repr=False)
    _made_with: tuple[_Together, int] | None = field(default=None, compare=False, repr=False)

    @property
    def difference(self) -> float:
        """Candidate minus baseline, over the questions that both have."""
        return self.result.difference

    @property
    def interval(self) -> Interval:
        """The confidence interval of the difference."""
        return self.result.interval

    @property
    def p_value(self) -> float:
        """The two-sided p-value of this comparison alone."""
        return self.result.p_value

    @property
    def verdict(self) -> Verdict:
        """BETTER, WORSE, NO DIFFERENCE or INCONCLUSIVE; among many, what it is alone has to survive their number."""
        alone = self._alone
        if self.compared_with == 1:
            return alone
        is_win = self.adjusted_p_value < 1.0 - self.result.interval.level
        survives = self.is_even_among_all if alone is Verdict.NO_DIFFERENCE else is_win
        return alone if survives else Verdict.INCONCLUSIVE

    @property
    def _alone(self) -> Verdict:
        """What it would be without the others; of what an answer costs, less is better."""
        turned = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
        found = self.result.verdict
        return turned.get(found, found) if self.reports and self.reports[0].is_measure else found

    @property
    def verdict_text(self) -> str:
        """The verdict in words, with the size of the difference that it is about."""
        return self.result.verdict_text if self.verdict is self.result.verdict else self.verdict.value

    @property
    def title(self) -> str:
        """Who is compared with whom."""
        return f"{self.candidate} against {self.baseline}"

    def settling(self) -> Iterator[str]:
        """Yield what would settle it, in words; nothing where it is settled."""
        result = self.result
        if self.verdict is not Verdict.INCONCLUSIVE:
            return
        yield from why_undecided(result)
        if result.needed is not None:
            yield result.needed.sentence
        if result.verdict is Verdict.NO_DIFFERENCE:
            yield (
                f"Alone it would be {result.verdict_text}; among {self.compared_with:,} comparisons an interval that "
                "holds with all others (Bonferroni) is too wide for that. Compare fewer reports, or add questions."
            )
        elif self._alone is not self.verdict:
            alpha = 1.0 - result.interval.level
            yield (
                f"Alone it would be {self._alone.value}; among {self.compared_with:,} comparisons its p-value of "
                f"{p_value(self.p_value)} becomes {p_value(self.adjusted_p_value)} (Holm), and "
                f"{alpha:.3g} is the limit. Compare fewer reports, or evaluate these two afresh on more questions."
            )

    def changed(self) -> tuple[ChangedQuestion, ...]:
        """Return the questions that were won or lost, the biggest loss first; as many as `result.wins` and `losses`."""
        baseline, candidate = self.reports
        previews = {question.question: question.preview for report in self.reports for question in report.questions}
        command = command_for([report.path for report in self.reports], candidate.provenance.metric)
        return changed_between(baseline.table, candidate.table, previews, command)

    def of_question(self, question: str) -> Comparison:
        """Return what it says of one question.

        Args:
            question: What identifies it, or how that begins.

        Raises:
            ConfigurationError: If no question of both, or more than one, is identified so.
        """
        both = set.intersection(*({one.question for one in report.questions} for report in self.reports))
        found = [name for name in both if name == question] or [name for name in both if name.startswith(question)]
        if len(found) != 1:
            what = "questions of both begin" if found else "of the questions of both begins"
            raise ConfigurationError(f"{len(found) or 'none'} {what} with {question!r}: changed() names them")
        sides = [
            replace(report, questions=tuple(one for one in report.questions if one.question == found[0]))
            for report in self.reports
        ]
        return compare_two(sides[0], sides[1], level=self.interval.level)

    def trace(self, question: str) -> str:
        """Return what both were asked, told and answered at a question, as text: what of it is kept.

        Args:
            question: What identifies it, or how that begins (see `changed`).

        Raises:
            ConfigurationError: If no question of both, or more than one, is identified so.
        """
        return "\n\n".join(f"[{title}]\n{text}" for title, text in transcript(self.of_question(question).page()))

    @cached_property
    def metrics(self) -> Mapping[str, Comparison]:
        """The comparison by each metric of both, by name, where there are several.

        Their verdicts hold together, and with those by the metrics of all other pairs that are compared at once. The
        smallest difference that matters is that of the first metric; each other has a twentieth of its own scale.
        """
        made, place = self._made_with or (_Together([self]), 0)
        return made.metrics[place]

    @cached_property
    def slices(self) -> Mapping[str, Comparison]:
        """The comparison of each slice of the questions, by name; their verdicts hold together, as those of metrics."""
        made, place = self._made_with or (_Together([self]), 0)
        return made.slices[place]

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw both scores with their intervals, and score against what an answer costs. Needs the `plots` extra.

        Args:
            path: Where to save the figure, or None to only return it.
        """
        return plot_scores(self.reports, path)

    def page(
        self, stores: Sequence[Readable] | None = None, *, most: int = MOST_TEXT, said: Sheet | None = None
    ) -> Page:
        """Return what is on its page (see `to_html`); `said` stands there in the place of what it says by itself."""
        result, error = self.result, self.result.error.value
        row = score_row("difference", result.n, result.difference, self.interval, error, sign=True)
        changes = {one.question: one.difference for one in self.changed()}
        return page_of(said or self._sheet(), self.reports, stores, most=most, difference=row, changes=changes)

    def settling_briefly(self) -> Iterator[str]:
        """Yield what would settle it in a few words, for where there are several; nothing where it is settled."""
        return settling_briefly(self.result, self.verdict, adjusted=(self.adjusted_p_value, self.compared_with))

    def cells(self) -> tuple[Cell, ...]:
        """Return the difference as cells of a table (see `difference_cells`)."""
        return difference_cells(self.result, self.adjusted_p_value, self.verdict_cell())

    def verdict_cell(self) -> Cell:
        """Return the verdict, and how it is meant."""
        return Cell(self.verdict_text, TONES[self.verdict])

    def __repr__(self) -> str:
        return f"<Comparison {self.candidate!r} against {self.baseline!r}: {self.verdict_text}; {self.result!r}>"

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain data: its numbers, and what is said of them."""
        result = self.result
        return {
            "baseline": self.baseline,
            "candidate": self.candidate,
            **asdict(result),
            "ties": result.ties,
            "minimal_detectable_effect": result.minimal_detectable_effect,
            "minimal_detectable_range": result.minimal_detectable_range,
            "adjusted_p_value": self.adjusted_p_value,
            "verdict": self.verdict_text,
            "needed": None if result.needed is None else result.needed.sentence,
            "shared_draws": self.shared_draws,
            "warnings": self.warnings,
            "metrics": {name: one.as_dict() for name, one in self.metrics.items()},
            "slices": {name: one.as_dict() for name, one in self.slices.items()},
        }

    def _rows(self) -> Iterator[tuple[str, str]]:
        adjusted = (self.adjusted_p_value, self.compared_with)
        return difference_rows(self.result, self.reports, names=(self.candidate, self.baseline), adjusted=adjusted)

    def apart(self, *, briefly: bool = False) -> tuple[Part, ...]:
        """Return what is looked at apart as tables: by metric, and by slice; briefly, what of it fits on a screen."""
        worst_first = sorted(self.slices.items(), key=lambda one: one[1].difference)
        metrics, slices = (
            [(name, one.result.n, one.cells()) for name, one in found] for found in (self.metrics.items(), worst_first)
        )
        return difference_parts(metrics, slices, briefly=briefly)

    def _sheet(self) -> Sheet:
        return sheet(
            self.title,
            self.verdict_cell(),
            notes("What would settle it", self.settling()),
            facts("Difference", (*self._rows(), *further_rows(self.result))),
            notes("Warnings", self.warnings),
            notes("Caveats", self.interval.caveats),
            *self.apart(),
            Part(
                "Questions that do not pair",
                unpaired_rows(
                    self.unpaired,
                    [(self.baseline, self.result.only_baseline), (self.candidate, self.result.only_candidate)],
                ),
                header=("only in", "question", "begins with"),
            ),
            picture=difference_picture(self.result, names=(self.candidate, self.baseline), tone=TONES[self.verdict]),
        )

    def _brief(self) -> Sheet:
        return sheet(
            self.title,
            self.verdict_cell(),
            facts("", self._rows()),
            notes("What would settle it", self.settling()),
            notes("Warnings", self.warnings),
            notes("Caveats", self.interval.caveats),
            *self.apart(briefly=True),
            more=MORE,
        )


@passes_on
def compare_two(
    baseline: Measurement, candidate: Measurement, *, smallest_difference: float | None = None, level: float = 0.95
) -> Comparison:
    """Compare a candidate with its baseline (see `EvalReport.compare`).

    Raises:
        ConfigurationError: If the candidate is no report.
    """
    if not isinstance(candidate, Measurement):
        raise ConfigurationError(f"a report is compared with another one of evaluate(), not with {candidate!r}")
    result = compare_paired(baseline.table, candidate.table, smallest_difference=smallest_difference, level=level)
    told = Draws(baseline.draw_tokens | candidate.draw_tokens).told
    shared = len(set(map(told, baseline.draw_tokens)) & set(map(told, candidate.draw_tokens)))
    alone = {*result.only_baseline, *result.only_candidate}
    return Comparison(
        baseline=baseline.name,
        candidate=candidate.name,
        result=result,
        adjusted_p_value=result.p_value,
        shared_draws=shared,
        warnings=tuple(warnings_of(baseline, candidate, result, shared)),
        unpaired={
            question.question: question.preview
            for report in (baseline, candidate)
            for question in report.questions
            if question.question in alone
        },
        reports=(baseline, candidate),
    )


def together(pairs: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Return comparisons that are made together, each with what allows for their number.

    Wins are held to Holm's p-values, and NO DIFFERENCE to Bonferroni's intervals: the probability of even one false win
    in the family, and of even one difference that is denied, is at most one minus the level.
    """
    among, adjusted = len(pairs), holm([pair.p_value for pair in pairs])
    even = [is_even_among(among, pair.result, *(report.table for report in pair.reports)) for pair in pairs]
    made = _Together(pairs)
    return tuple(
        replace(pair, adjusted_p_value=value, compared_with=among, is_even_among_all=is_even, _made_with=(made, place))
        for place, (pair, value, is_even) in enumerate(zip(pairs, adjusted, even, strict=True))
    )


class _Together:
    """Comparisons that are made together: what is looked at apart in one of them is one of many looks, too.

    Args:
        pairs: The comparisons, each as it is alone.
    """

    def __init__(self, pairs: Sequence[Comparison]) -> None:
        self._pairs = tuple(pairs)

    @cached_property
    def metrics(self) -> Sequence[Mapping[str, Comparison]]:
        """What each says by each metric."""
        return self._held([_by_metric(pair) for pair in self._pairs])

    @cached_property
    def slices(self) -> Sequence[Mapping[str, Comparison]]:
        """What each says of each slice."""
        return self._held([_by_slice(pair) for pair in self._pairs])

    def _held(self, parts: Sequence[Mapping[str, Comparison]]) -> list[dict[str, Comparison]]:
        held = iter(together([one for found in parts for one in found.values()]))
        return [{name: next(held) for name in found} for found in parts]


def _by_metric(pair: Comparison) -> dict[str, Comparison]:
    # A size in units of one score says nothing of another's.
    found = {name: compare_two(*of, level=pair.interval.level) for name, *of in paired_metrics(*pair.reports)}
    own = pair.reports[0].provenance.metric
    if own in found and own == pair.reports[1].provenance.metric:
        found[own] = replace(pair, reports=found[own].reports)
    return found


def _by_slice(pair: Comparison) -> dict[str, Comparison]:
    size, level = pair.result.smallest_difference, pair.interval.level
    return {name: compare_two(*of, smallest_difference=size, level=level) for name, *of in paired_slices(*pair.reports)}
