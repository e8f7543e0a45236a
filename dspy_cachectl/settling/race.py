"""What became of a race of programs, and how it is shown."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.reports.apart.tables import scores_by_metric
from dspy_cachectl.reports.caveats import bias_of_best
from dspy_cachectl.reports.comparison import Comparison
from dspy_cachectl.reports.describe import scores_picture
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.several import Comparisons
from dspy_cachectl.reports.texts import MISSING, ends_text, number, p_value, places, plural
from dspy_cachectl.showing.render import Shown
from dspy_cachectl.showing.sheets import Cell, Giving, Part, Sheet, Tone, facts, notes, sheet
from dspy_cachectl.statistics.looks import Bound
from dspy_cachectl.statistics.verdicts import Verdict
from dspy_cachectl.tracking.outgoing import Logged, Outgoing
from dspy_cachectl.tracking.report_records import of_comparisons

if TYPE_CHECKING:
    from dspy_cachectl.tracking.resolve import Target

_COLUMNS = ("program", "score", "questions", "behind by", "interval", "p", "what became of it")
_GIVING = Giving(right=("questions", "p"), whole=("score", "behind by", "interval"), names=("program",))


@dataclass(frozen=True)
class Runner:
    """One program of a race.

    Attributes:
        report: Its report, of the questions that it was asked.
        comparison: The leader against it, when it was dropped or at the end; None for the leader.
        dropped: At which look it was dropped, from 1; None where it was not.
    """

    report: EvalReport
    comparison: Comparison | None
    dropped: int | None

    @property
    def name(self) -> str:
        """What it is called."""
        return self.report.name


@dataclass(frozen=True)
class Race(Shown, Logged):
    """A race of several programs that was run until it was settled, or there was nothing more to ask.

    Attributes:
        runners: The programs: the leader and who is left first, then those that were dropped, the last one first.
        leader: The name of the one with the highest score at the end.
        looks: After how many questions it was looked at.
        bound: How the error was shared out among the looks.
        level: The level of all pairs and all looks together.
        most: How many questions could be asked.
    """

    runners: tuple[Runner, ...]
    leader: str
    looks: tuple[int, ...]
    bound: Bound
    level: float
    most: int

    def __getitem__(self, name: str) -> Runner:
        for runner in self.runners:
            if runner.name == name:
                return runner
        raise ConfigurationError(f"no program is called {name!r}; there are {[one.name for one in self.runners]}")

    @property
    def left(self) -> tuple[str, ...]:
        """The names of those that were not dropped, the leader among them."""
        return tuple(one.name for one in self.runners if one.dropped is None)

    @property
    def winner(self) -> str | None:
        """The name of the one that is better than all others; None where several are left."""
        return self.leader if len(self.left) == 1 else None

    @property
    def verdict_text(self) -> str:
        """What it says: a WINNER, several with NO DIFFERENCE OF SIZE d, or BUDGET SPENT."""
        if self.winner is not None:
            return f"WINNER: {self.winner}"
        last = [one.comparison for one in self.runners if one.dropped is None and one.comparison is not None]
        if all(one.verdict is Verdict.NO_DIFFERENCE for one in last):
            return f"{last[0].verdict_text}: {', '.join(self.left)}"
        return f"BUDGET SPENT: {', '.join(self.left)} are not told apart"

    @property
    def answers(self) -> int:
        """How many answers were needed, of all programs together."""
        return sum(len(one.report.draws) for one in self.runners)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "verdict": self.verdict_text,
            "winner": self.winner,
            "leader": self.leader,
            "left": list(self.left),
            "looks": list(self.looks),
            "bound": self.bound.value,
            "level": self.level,
            "most": self.most,
            "answers": self.answers,
            "runners": [
                {
                    "name": one.name,
                    "score": one.report.score,
                    "questions": one.report.n,
                    "dropped": one.dropped,
                    "comparison": None if one.comparison is None else one.comparison.as_dict(),
                }
                for one in self.runners
            ],
        }

    def records(self, target: Target) -> list[Outgoing]:
        """Return what is logged of it (see `log_to_mlflow`): what each was dropped by, and the looks as steps."""
        found = tuple(one.comparison for one in self.runners if one.comparison is not None)
        gone = [one.dropped or len(self.looks) + 1 for one in self.runners]
        looks = [
            {"look": look, "questions": asked, "left": sum(dropped > look for dropped in gone)}
            for look, asked in enumerate(self.looks, start=1)
        ]
        settled = {"verdict": self.verdict_text, "bound": self.bound.value, "best": self.leader, "most": self.most}
        reports = tuple(one.report for one in self.runners)
        return of_comparisons(Comparisons(reports, found), target, looks=looks, settled=settled)

    def __repr__(self) -> str:
        return f"<Race of {len(self.runners)}: {self.verdict_text}; {plural(len(self.looks), 'look')}>"

    def _facts(self) -> Iterator[tuple[str, str]]:
        all_of_it = len(self.runners) * self.most
        yield "answers", f"{self.answers:,} of the {all_of_it:,} that all questions to all would be"
        until = f"up to {self.looks[-1]:,} of {plural(self.most, 'question')}"
        yield "looks", f"{len(self.looks):,}, {until} ({self.bound.value} bound)"
        yield "error", f"{1.0 - self.level:.3g} for all pairs and all looks together (Holm)"
        leading = self[self.leader].report
        bias = bias_of_best([leading], len(self.runners))
        much = f"up to about {number(bias, places(leading.standard_error))}" if math.isfinite(bias) else "any amount"
        yield "score of the leader", f"may look too good by {much}: report it on other questions"

    def _row(self, one: Runner) -> tuple[Cell, ...]:
        report, found = one.report, one.comparison
        decimals = places(report.standard_error)
        cells = [Cell(one.name), Cell(number(report.score, decimals)), Cell(f"{report.n:,}")]
        if found is None:
            return (*cells, *[Cell(MISSING)] * 3, Cell("leads", Tone.GOOD))
        error = found.result.error.value
        cells += [Cell(number(found.difference, places(error)))]
        cells += [Cell(ends_text(found.interval, error, sign=True)), Cell(p_value(found.p_value))]
        even = found.verdict is Verdict.NO_DIFFERENCE
        said = Cell("as good", Tone.EVEN) if even else Cell("not told apart", Tone.UNSURE)
        return (*cells, said if one.dropped is None else Cell(f"dropped at look {one.dropped}", Tone.BAD))

    def _sheet(self) -> Sheet:
        return self._shown()

    def _brief(self) -> Sheet:
        return self._shown(briefly=True)

    def _shown(self, *, briefly: bool = False) -> Sheet:
        warnings = dict.fromkeys(said for one in self.runners if one.comparison for said in one.comparison.warnings)
        tone = Tone.GOOD if self.winner else Tone.EVEN if self.verdict_text.startswith("NO") else Tone.UNSURE
        return sheet(
            f"Race of {plural(len(self.runners), 'program')}",
            Cell(self.verdict_text, tone),
            Part("", tuple(map(self._row, self.runners)), header=_COLUMNS, giving=_GIVING),
            scores_by_metric([one.report for one in self.runners], briefly=briefly),
            facts("What is said", self._facts()),
            notes("Warnings", warnings),
            picture=scores_picture([one.report for one in self.runners]),
        )
