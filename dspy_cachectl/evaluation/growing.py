"""An evaluation that is asked piece by piece, in a seeded random order, so that what there is of it is a sample."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dspy_cachectl.context.phases import PhaseRun
from dspy_cachectl.context.process import state
from dspy_cachectl.evaluation.asking import asked
from dspy_cachectl.evaluation.kept_predictions import KeptPredictions
from dspy_cachectl.evaluation.reporting import question_id
from dspy_cachectl.evaluation.task import Task
from dspy_cachectl.reports.merging import joined
from dspy_cachectl.reports.progress_bar import progress
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.results import Stopping
from dspy_cachectl.statistics.looks import may_decide

_LOOKS = 10
_WIDTHS = 50
"""How often the width of an interval is looked at, at most."""
_FEWEST_FOR_A_WIDTH = 60
"""Before so many questions it is not looked at: with fewer, a lucky few end it, and the truth is in it less often."""
_FEWEST = 20
"""A look at fewer questions than this decides nothing that anybody should rely on."""


def random_order(task: Task, seed: int) -> list[int]:
    """Return the places of a task's questions in the order of a hash of each, which is random and told by the seed.

    It depends on what is asked and not on the order of the data set, so two programs, and two runs, have the same.
    Questions of one cluster, and equal ones, stay together: so each piece is a sample of clusters.
    """

    def place(number: int) -> tuple[bytes, bytes]:
        question = task.questions[number]
        group = question.example_key if task.groups is None else str(task.groups[number])
        return _hashed(seed, group), _hashed(seed, f"{question.example_key}#{question.occurrence}")

    return sorted(range(len(task.questions)), key=place)


def _hashed(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}/{text}".encode("utf-8", "surrogatepass")).digest()


def sizes_of_looks(most: int, batch: int | None, *, first: int = 1) -> list[int]:
    """Return after how many questions to look, from the first on at which one may: after each batch, and at the end.

    A batch is a tenth of all where it is not given, and 20 at least.
    """
    step = max(_FEWEST, -(-most // _LOOKS)) if batch is None else batch
    return [*(count for count in range(step, most, step) if count >= first), most]


def grown(
    task: Task,
    kept: KeptPredictions,
    *,
    until: float | None,
    seed: int,
    shown: bool = False,
    metadata: Any = None,
    baseline: EvalReport | None = None,
) -> tuple[EvalReport, PhaseRun]:
    """Evaluate in random order, and no further than until the interval of the score is as narrow as it has to be.

    The number of questions is told by the spread of the scores, so the interval at the stop covers nearly what it says
    (Chow & Robbins, Annals of Mathematical Statistics 36 (1965) 457-462): computed exactly for questions that pass or
    fail, 93.4% at least where it says 95%, whatever the share that pass. A few clusters that happen to agree end
    nothing (see `may_decide`): with 60% that pass they would cover 89%.

    Args:
        task: What is evaluated.
        kept: What is kept of it.
        until: How wide the interval may be, in units of the score; None to ask all.
        seed: What the order is told by.
        shown: Whether to show how far it is.
        metadata: What `dspy.Evaluate` tells its callbacks.
        baseline: The report to compare with.

    Returns:
        The report, and the last passage through the phase.
    """
    growing, most = (
        Growing(task, kept, random_order(task, seed), metadata=metadata, baseline=baseline),
        len(task.questions),
    )
    repeats = range(task.repeats)
    if until is None:
        growing.ask(most, repeats, shown=shown)
        return growing.found(**growing.cut(seed))
    looks = 0
    with progress(task.name, shown=shown) as show:
        for count in sizes_of_looks(most, max(_FEWEST, -(-most // _WIDTHS)), first=_FEWEST_FOR_A_WIDTH):
            found = growing.ask(count, repeats)
            width = found.interval.width
            looks += 1
            show(count, most, f"interval {width:.3f} wide, {until:g} is enough".__str__)
            if (width <= until and may_decide(found.error)) or growing.is_cut:
                break
    return growing.found(**{"stopping": growing.stopping(looks, seed, by="width"), **growing.cut(seed)})


class Growing:
    """An evaluation of which more is asked each time.

    Args:
        task: All of it.
        kept: What is kept of it.
        order: The places of its questions in the order in which they are asked.
        **options: Further arguments of `asked`, for each piece.

    Attributes:
        report: The report of all that was asked until now; None before the first question.
        run: The last passage through the phase.
    """

    def __init__(self, task: Task, kept: KeptPredictions, order: Sequence[int], **options: Any) -> None:
        self._task, self._kept, self._order, self._options = task, kept, order, options
        self.report: EvalReport | None = None
        self.run: PhaseRun | None = None
        self._count = 0

    def ask(self, count: int, repeats: range, *, shown: bool = False) -> EvalReport:
        """Ask the first so many questions of the order, in some repeats; what was asked is not asked again.

        What ends it takes along the report of all that was answered.

        Returns:
            The report of all until now, its questions in the order of the data set.
        """
        start = self._count if repeats.start == 0 else 0
        numbers = self._order[start:count]
        if not numbers and self.report is not None:
            return self.report
        kept = self._kept.beside()
        try:
            found, self.run = asked(self._task.only(numbers, repeats), kept, shown=shown, **self._options)
        except BaseException as error:
            cut = getattr(error, "report", None)
            if self.report is not None:
                whole = self._with(cut) if isinstance(cut, EvalReport) else self.report
                state.last_report = error.report = whole  # type: ignore[attr-defined]  # for who catches it
            raise
        self._count = max(self._count, count)
        # A policy that draws afresh has given the first piece a run, and the others are of the same.
        self._task = replace(self._task, run_id=self._task.run_id or self.run.run_id)
        self.report = self._with(found)
        return self.report

    def found(self, **changed: Any) -> tuple[EvalReport, PhaseRun]:
        """Return the report of all that was asked, and the last passage through the phase.

        Args:
            **changed: Fields of the report's provenance.
        """
        assert self.report is not None  # noqa: S101 - nobody asks for what was not begun
        assert self.run is not None  # noqa: S101 - likewise
        return replace(self.report, provenance=replace(self.report.provenance, **changed)), self.run

    def finish(self, **changed: Any) -> EvalReport:
        """Write what is kept, and return the report; see `found`."""
        state.last_report = report = self._kept.finish(self.found(**changed)[0])
        return report

    @property
    def is_cut(self) -> bool:
        """Whether a budget was spent before all was asked."""
        return self.report is not None and self.report.provenance.missing > 0

    def cut(self, seed: int) -> dict[str, Any]:
        """Return how it stopped where a budget was spent, as fields of a provenance."""
        if not self.is_cut or self.report is None:
            return {}
        asked, offered = len(self.report.questions), len(self._task.questions)
        return {"stopping": Stopping(by="budget", looks=0, asked=asked, offered=offered, seed=seed)}

    def stopping(self, looks: int, seed: int, *, by: str) -> Stopping:
        """Return how it stopped by itself: after so many looks, at what."""
        return Stopping(by=by, looks=looks, asked=self._count, offered=len(self._task.questions), seed=seed)

    def _with(self, found: EvalReport) -> EvalReport:
        """Return the report of what was asked until now and of what was found now."""
        there = {} if self.report is None else {one.question: one for one in self.report.questions}
        for one in found.questions:
            before = there.get(one.question)
            there[one.question] = one if before is None else replace(before, draws=before.draws + one.draws)
        questions = [there[name] for name in map(question_id, self._task.questions) if name in there]
        if self.report is None:
            return replace(found, questions=tuple(questions))
        whole = joined([self.report, found], questions)
        draws = [draw.loaded for question in whole.questions for draw in question.draws]
        made = whole.provenance
        if all(draws) and made.predictions != "off":
            made = replace(made, predictions="loaded", changes=())
        seconds = self.report.provenance.seconds + found.provenance.seconds
        return replace(whole, provenance=replace(made, seconds=seconds))
