"""What is evaluated, and how, as a value; and the parts of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dspy

from dspy_cachectl.batches.notes import Note
from dspy_cachectl.context.phases import PhaseContext
from dspy_cachectl.context.process import state
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.evaluation.scoring import Metric
from dspy_cachectl.fingerprints.data import Question
from dspy_cachectl.phases.phase import phase
from dspy_cachectl.reports.results import OtherMetric


@dataclass(frozen=True)
class Task:
    """What is evaluated, and how: all of an evaluation that is the same wherever it is made.

    Attributes:
        program: The program, with governed LMs.
        devset: The questions' examples.
        metrics: The metrics; the score is that of the first.
        questions: The questions, counted over the whole data set.
        groups: The cluster of each, or None.
        made_of: What it is made of, by fields of a provenance.
        context: The phase to ask in.
        run_id: The run to draw under; None for a new one, or where the phase makes none.
        repeats: How many answers each question has.
        num_threads: See `evaluate`; likewise the next five.
        max_errors: See there.
        timeout: See there.
        failure_score: See there.
        level: See there.
        name: See there.
        slices: The names of the slices that each question is in, or None.
        measures: What of the answers' cost is looked at.
        declared: Whether the user said what it depends on that cannot be seen.
        shard: Which part of how many of it this is, from 0; None for the whole.
        first: The first repeat that is made here.
        is_limited: Whether it ends with what there is where a budget is spent.
        waves: What answers its calls, where they go by batches; or None.
        sent: The batches that were sent of it before.
    """

    program: Any
    devset: Sequence[dspy.Example]
    metrics: Sequence[Metric]
    questions: Sequence[Question]
    groups: Sequence[Any] | None
    made_of: Mapping[str, Any]
    context: PhaseContext
    run_id: str | None
    repeats: int
    num_threads: int | None
    max_errors: int | None
    timeout: float | None
    failure_score: float
    level: float
    name: str
    slices: Sequence[tuple[str, ...]] | None = None
    measures: Sequence[OtherMetric] = ()
    declared: bool = False
    shard: tuple[int, int] | None = None
    first: int = 0
    is_limited: bool = False
    waves: Any = None
    sent: Sequence[Note] = ()

    def only(self, numbers: Sequence[int], repeats: range) -> Task:
        """Return what of it is of these questions, by their places, and of these repeats."""
        return replace(
            self,
            devset=[self.devset[number] for number in numbers],
            questions=[self.questions[number] for number in numbers],
            groups=None if self.groups is None else [self.groups[number] for number in numbers],
            slices=None if self.slices is None else [self.slices[number] for number in numbers],
            first=repeats.start,
            repeats=repeats.stop,
        )

    def part(self, index: int, of: int) -> Task:
        """Return a part of it: every so many questions one, beginning with that of the part's number.

        Raises:
            ConfigurationError: If there is no question in it.
        """
        if index >= len(self.questions):
            raise ConfigurationError(
                f"shard {index} of {of} has no question: there are {len(self.questions):,}, so make no more shards"
            )
        mine = slice(index, None, of)
        return replace(
            self,
            devset=self.devset[mine],
            questions=self.questions[mine],
            groups=None if self.groups is None else self.groups[mine],
            slices=None if self.slices is None else self.slices[mine],
            shard=(index, of),
        )

    def its_questions(self) -> dict[str, Any]:
        """Return what of it is its questions, by fields."""
        return {"devset": self.devset, "questions": self.questions, "groups": self.groups, "slices": self.slices}

    def without_questions(self) -> Task:
        """Return what all of its parts have in common. Where it comes from is told by none of them."""
        return replace(self, devset=(), questions=(), groups=None, slices=None, context=replace(self.context, token=""))

    def with_questions(self, shard: tuple[int, int], **questions: Any) -> Task:
        """Return one of its parts, given its questions."""
        return replace(self, shard=shard, **questions)

    def phase(self) -> phase:
        """Return the phase to ask in, which describes no more of the run than this part."""
        context = self.context
        opened = phase(
            context.name,
            context.policy,
            roles=dict(context.roles),
            run_id=self.run_id,
            everywhere=context in state.everywhere,
            bypass_proxy=context.bypass_proxy,
        ).without_its_own()
        taken: dict[str, Any] = {"rates": context.rates, "budgets": context.budgets}
        opened.context = replace(opened.context, part=self.shard or opened.context.part, **taken)
        return opened


def metrics_unit(unit: str) -> str:
    """Return the name of what is drawn for judging what is drawn for a unit."""
    return f"{unit}/metric"
