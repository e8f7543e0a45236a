"""What became of a comparison that was looked at while it grew, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dspy_cachectl.reports.comparison import TONES, Comparison
from dspy_cachectl.reports.describe import MORE, circumstance_text
from dspy_cachectl.reports.difference import difference_picture
from dspy_cachectl.reports.measurement import Measurement
from dspy_cachectl.reports.paged import MOST_TEXT, Paged
from dspy_cachectl.reports.several import Comparisons
from dspy_cachectl.reports.texts import ends_text, number, p_value, places, plural
from dspy_cachectl.showing.render import Shown
from dspy_cachectl.showing.sheets import Cell, Giving, Part, Sheet, facts, notes, sheet
from dspy_cachectl.statistics.looks import Bound
from dspy_cachectl.statistics.verdicts import Verdict
from dspy_cachectl.tracking.outgoing import Logged, Outgoing
from dspy_cachectl.tracking.report_records import of_comparisons

if TYPE_CHECKING:
    from dspy_cachectl.page.content import Page
    from dspy_cachectl.reports.kept_texts import Readable
    from dspy_cachectl.tracking.resolve import Target

BUDGET_SPENT = "BUDGET SPENT"
_COLUMNS = ("look", "questions", "answers", "difference", "interval", "p", "limit")
_GIVING = Giving(right=("look", "questions", "answers", "p", "limit"), whole=("difference", "interval"))


@dataclass(frozen=True, slots=True)
class Look:
    """A look at a comparison while it grew.

    Attributes:
        questions: How many questions both had answered.
        answers: How many answers each of them had given.
        difference: Candidate minus baseline.
        low: Where the interval begins that holds, at this look and all others, with the level of all looks together.
        high: Where it ends.
        p_value: The p-value of this look.
        limit: What it has to be below for a verdict at this look.
        verdict: What this look says.
    """

    questions: int
    answers: int
    difference: float
    low: float
    high: float
    p_value: float
    limit: float
    verdict: str

    @classmethod
    def at(cls, comparison: Comparison, answers: int) -> Look:
        """Return a look, given the comparison with the level of that look."""
        result, interval = comparison.result, comparison.interval
        return cls(
            questions=result.n,
            answers=answers,
            difference=result.difference,
            low=interval.low,
            high=interval.high,
            p_value=result.p_value,
            limit=1.0 - interval.level,
            verdict=comparison.verdict_text,
        )

    def said(self) -> str:
        """Return what it says in a few words, for who watches."""
        return f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    def row(self, number_of: int, error: float) -> tuple[Cell, ...]:
        """Return it as a row of a table."""
        decimals = places(error)
        ends = f"{number(self.low, decimals, sign=True)} to {number(self.high, decimals, sign=True)}"
        texts = (
            f"{number_of}",
            f"{self.questions:,}",
            f"{self.answers:,}",
            number(self.difference, decimals, sign=True),
        )
        return tuple(map(Cell, (*texts, ends, p_value(self.p_value), f"{self.limit:.2g}")))


@dataclass(frozen=True)
class Settled(Shown, Paged, Logged):
    """A comparison that was asked until it was settled, or there was nothing more to ask.

    Attributes:
        comparison: The comparison at the last look. Its interval has the level of that look, so that it holds with
            `level` at whatever look one stops.
        looks: Every look, the first one first.
        bound: How the error was shared out among them.
        level: The level of all looks together.
        most: How many questions could be asked.
        repeats: How many answers to each could be.
    """

    comparison: Comparison
    looks: tuple[Look, ...]
    bound: Bound
    level: float
    most: int
    repeats: int = 1

    @property
    def baseline(self) -> Measurement:
        """The baseline's report, of the questions that were asked."""
        return self.comparison.reports[0]

    @property
    def candidate(self) -> Measurement:
        """The candidate's report, of the questions that were asked."""
        return self.comparison.reports[1]

    @property
    def verdict(self) -> Verdict:
        """BETTER, WORSE, NO DIFFERENCE, or INCONCLUSIVE where all was asked that could be."""
        return self.comparison.verdict

    @property
    def verdict_text(self) -> str:
        """The verdict in words: BETTER, WORSE, NO DIFFERENCE OF SIZE d, or BUDGET SPENT."""
        return BUDGET_SPENT if self.verdict is Verdict.INCONCLUSIVE else self.comparison.verdict_text

    @property
    def asked(self) -> int:
        """How many questions were asked."""
        return self.comparison.result.n

    @property
    def answers(self) -> int:
        """How many answers were needed, of both programs together."""
        return len(self.baseline.draws) + len(self.candidate.draws)

    @property
    def saved(self) -> int:
        """How many answers fewer these are than asking all that could be asked."""
        return 2 * self.most * self.repeats - self.answers

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "verdict": self.verdict_text,
            "bound": self.bound.value,
            "level": self.level,
            "asked": self.asked,
            "most": self.most,
            "repeats": self.repeats,
            "answers": self.answers,
            "looks": [asdict(look) for look in self.looks],
            "comparison": self.comparison.as_dict(),
        }

    def page(self, stores: Sequence[Readable] | None = None, *, most: int = MOST_TEXT) -> Page:
        """Return what is on its page (see `to_html`): the comparison at the last look, and all looks."""
        return self.comparison.page(stores, most=most, said=self._sheet())

    def records(self, target: Target) -> list[Outgoing]:
        """Return what is logged of it (see `log_to_mlflow`): the last comparison, and the looks as steps."""
        return of_comparisons(
            Comparisons(self.comparison.reports, (self.comparison,)),
            target,
            looks=[asdict(look) for look in self.looks],
            settled={"verdict": self.verdict_text, "bound": self.bound.value, "asked": self.asked, "most": self.most},
            paged=self,
        )

    def __repr__(self) -> str:
        much = f"{self.asked:,} of {plural(self.most, 'question')}, {plural(len(self.looks), 'look')}"
        return f"<Settled {self.comparison.title}: {self.verdict_text}; {self.comparison.result!r}, {much}>"

    def _rows(self) -> Iterator[tuple[str, str]]:
        result, interval = self.comparison.result, self.comparison.interval
        error = result.error.value
        decimals = places(error)
        yield "candidate", f"{number(result.candidate_mean, decimals)} ({self.comparison.candidate})"
        yield "baseline", f"{number(result.baseline_mean, decimals)} ({self.comparison.baseline})"
        yield "difference", f"{number(result.difference, decimals, sign=True)} ± {number(error, decimals)}"
        ends = ends_text(interval, error, sign=True)
        yield f"{100 * self.level:.4g}% interval over all looks", ends
        yield "p-value", f"{p_value(result.p_value)}, {result.test}; below {1.0 - interval.level:.2g} is a verdict"
        pairs = f"{result.wins:,} won, {result.ties:,} tied, {result.losses:,} lost"
        yield "questions", f"{result.n:,} of {self.most:,}: {pairs}"
        saved = f", {self.saved:,} fewer than all of it" if self.saved > 0 else ""
        yield "answers", f"{self.answers:,} of both{saved}"
        yield "looks", f"{len(self.looks):,} ({self.bound.value} bound); the difference at a stop tends to be too large"
        for report in self.comparison.reports:
            yield report.name, circumstance_text(report)

    def _sheet(self) -> Sheet:
        result = self.comparison.result
        table = tuple(look.row(place, result.error.value) for place, look in enumerate(self.looks, start=1))
        return self._shown(
            Part("Looks", table, header=_COLUMNS, giving=_GIVING),
            *self.comparison.apart(),
            picture=difference_picture(
                result, names=(self.comparison.candidate, self.comparison.baseline), tone=TONES[self.verdict]
            ),
        )

    def _brief(self) -> Sheet:
        return self._shown(*self.comparison.apart(briefly=True), more=MORE)

    def _shown(self, *parts: Part, **more: Any) -> Sheet:
        return sheet(
            self.comparison.title,
            Cell(self.verdict_text, TONES[self.verdict]),
            facts("", self._rows()),
            notes("What it would take", self._taking()),
            *parts,
            notes("Warnings", self.comparison.warnings),
            notes("Caveats", self.comparison.interval.caveats),
            **more,
        )

    def _taking(self) -> Iterator[str]:
        """Yield what would settle it, where the budget was spent before it was."""
        found = self.comparison.result.needed
        if self.verdict is not Verdict.INCONCLUSIVE or found is None:
            return
        if found.questions_range is not None:
            least, most = found.questions_range
            yield (
                f"{least:,} to {most:,} questions instead of {self.asked:,} would probably be enough for a difference "
                f"of {self.comparison.result.smallest_difference:g}."
            )
        if self.bound is Bound.ANY_TIME:
            yield "Add questions and settle again: with this bound one may go on as often as one likes."
        else:
            yield "Settle again on other questions: for these all of the error is spent."
