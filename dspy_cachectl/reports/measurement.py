"""The answers of an evaluation, and the numbers that they come to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dspy_cachectl.accounting.asked import AskedModel
from dspy_cachectl.entries.draw_tokens import Draws
from dspy_cachectl.reports.independence import Doubts
from dspy_cachectl.reports.results import Counters, DrawResult, OtherMetric, QuestionResult, Stopping
from dspy_cachectl.reports.texts import finite, plural
from dspy_cachectl.reports.troubles import PredictorTrouble, by_predictor
from dspy_cachectl.seen.candidates import Selection
from dspy_cachectl.seen.leaks import Leak
from dspy_cachectl.statistics.intervals import Interval, mean_interval
from dspy_cachectl.statistics.repeats import (
    DistinctDraws,
    consistency,
    flip_rate,
    pass_at_k,
    pass_hat_k,
)
from dspy_cachectl.statistics.scores import Implied, ScoreTable
from dspy_cachectl.statistics.variance import StandardError, VarianceSplit, standard_error, variance_split

if TYPE_CHECKING:
    from typing_extensions import Self

MEASURE = "measure:"
"""Begins the hash of a metric that is what an answer cost."""

_UNTOLD = "Which repeats are draws of their own is not known, nor what more would add: add questions."


@dataclass(frozen=True)
class Provenance:
    """What a score is made of.

    Attributes:
        run_id: The run whose draws they are; None where the policy makes none of its own.
        phase: The phase it ran in.
        policy: The policy's preset, or CUSTOM.
        model: The name of the model that answered; several are joined with ` + `. None where no call was seen. This
            and the next four are told by the calls (see `models`), and None where these do not agree.
        endpoint: The endpoint's identity, or None for the provider's own.
        version: The model's version, or None.
        temperature: The temperature that the program asked for, or None where it was unset.
        temperature_lent: The temperature that the phase lent, or None.
        program: The hash of the program.
        data: The hash of the data set.
        metric: The metric's name.
        metric_hash: The hash of the metric.
        predictions: `"computed"`, `"loaded"`, `"extended"`, or `"off"`.
        changes: Why kept predictions could not be used, in words.
        snapshot: The file name of the kept predictions, or None.
        unsaved: Predictions that could not be kept.
        counters: The ledger of this evaluation (`Stats.as_dict()`).
        seconds: How long the evaluation took, in wall seconds.
        created: When it ended, in Unix seconds.
        versions: The versions of the packages.
        library_bytes: How many bytes the library of predictions takes up, or None where nothing is kept.
        library_limit: How many it may take up.
        missing: How many answers were asked for and are not in the report, since the evaluation was cut short.
        unfinished: How many were still being made when nobody waited for them any more: LM calls in the air are counted
            nowhere here.
        rescored: Loaded answers that the metric judged anew.
        models: The models that answered the program's calls, as they were asked, the busiest first; of loaded answers
            when they were made. Empty where no call was seen.
        judges: The models that answered the metric's own calls, likewise.
        unseen: What program or metric read, in words, that may have changed since the loaded answers were made.
        seeds: The seeds that the program's calls were made with.
        failure_score: What an answer counts for where the program or the metric failed.
        shard: Which part of how many of an evaluation it is, from 0; None for the whole.
        others: The further metrics that judged the same answers.
        interval: The interval of a score that is no mean; None: told by the scores.
        left_out: How many answers a measure leaves out: those that were not fresh, or of which it is not known.
        stopping: How it stopped by itself; None where its size was fixed before.
        program_text: What the program tells its LMs, and how it asks them, part by part, for people; empty where
            nothing can be told of it.
        leaks: The questions of the data set that stand in the program's own demonstrations or instructions.
        selection: How candidates of an optimizer were scored on these questions before, in this process; or None.
    """

    run_id: str | None
    phase: str
    policy: str
    model: str | None
    endpoint: str | None
    version: str | None
    temperature: float | None
    temperature_lent: float | None
    program: str
    data: str
    metric: str
    metric_hash: str
    predictions: str
    changes: tuple[str, ...]
    snapshot: str | None
    unsaved: int
    counters: Counters
    seconds: float
    created: float
    versions: Mapping[str, str] = field(default_factory=dict)
    library_bytes: int | None = None
    library_limit: int | None = None
    missing: int = 0
    unfinished: int = 0
    rescored: int = 0
    failure_score: float = 0.0
    models: tuple[AskedModel, ...] = ()
    judges: tuple[AskedModel, ...] = ()
    seeds: tuple[Any, ...] = ()
    unseen: tuple[str, ...] = ()
    program_text: Mapping[str, str] = field(default_factory=dict)
    shard: tuple[int, int] | None = None
    stopping: Stopping | None = None
    leaks: tuple[Leak, ...] = ()
    selection: Selection | None = None
    others: tuple[OtherMetric, ...] = ()
    interval: Interval | None = None
    left_out: int = 0

    def extent(self) -> Iterator[str]:
        """Yield in words where it is not an evaluation of all questions, of a size that was fixed before."""
        if self.shard is not None:
            which, of = self.shard
            yield f"this is shard {which} of {of} of an evaluation: EvalReport.merge() makes one report of all"
        if self.stopping is not None:
            is_looked_at = self.stopping.by == "comparison"
            more = "; the interval that holds at all looks is that of the comparison" if is_looked_at else ""
            yield f"{self.stopping}{more}"
        if self.left_out:
            yield f"{plural(self.left_out, 'answer')} left out: not drawn afresh, or what they cost is not known"

    def __repr__(self) -> str:
        return f"<Provenance: {self.model}, run {self.run_id!r}, phase {self.phase!r}, policy {self.policy}>"


@dataclass(frozen=True)
class Measurement:
    """A score with its error bar, and what it was made of. Scores are in the metric's own units.

    Attributes:
        name: What it is called in comparisons and plots.
        questions: The results, question by question, in the order of the data set.
        provenance: What the score is made of.
        level: The nominal coverage of its interval.
        path: Where the predictions are kept, to read them row by row; None where they are not.
    """

    name: str
    questions: tuple[QuestionResult, ...]
    provenance: Provenance
    level: float = 0.95
    path: str | None = field(default=None, compare=False)

    @cached_property
    def clusters_are_questions(self) -> bool:
        """Whether some questions are equal, and nobody said what belongs together: then equal ones do."""
        if any(question.cluster is not None for question in self.questions):
            return False
        return len({question.asked for question in self.questions}) < self.n

    @cached_property
    def table(self) -> ScoreTable:
        """The scores for the statistics: repeats that are one draw count once, and equal questions are a cluster."""
        rows = [self._distinct(question.draws) for question in self.questions]
        return ScoreTable(
            tuple([question.question for question in self.questions]),
            tuple([tuple([draw.score for draw in draws]) for draws in rows]),
            tuple([tuple([draw.failed is not None for draw in draws]) for draws in rows]) if self.failures else (),
            tuple([Implied(one.asked) if self.clusters_are_questions else one.cluster for one in self.questions]),
            self._scale,
        )

    @property
    def _scale(self) -> tuple[float, float] | None:
        """What scores can be, where they do not tell it themselves."""
        if self.is_measure:  # it has no top: it is taken for just above the highest there is
            return 0.0, math.nextafter(max(draw.score for draw in self._draws), math.inf)
        told = self.provenance.interval
        return None if told is None else (0.0, 1.0 if told.low >= 0.0 and told.high <= 1.0 else 100.0)

    @property
    def is_measure(self) -> bool:
        """Whether its scores are what answers cost, of which less is better."""
        return self.provenance.metric_hash.startswith(MEASURE)

    def is_fresh(self, draw: DrawResult) -> bool:
        """Whether all calls of an answer were seen, and none was given what another draw had been given before."""
        tokens = draw.draw.split("+") if draw.draw and not draw.strayed else []
        return bool(tokens) and not any(map(self._told_apart.known, tokens))

    @property
    def score(self) -> float:
        """The mean over questions of each question's mean over its draws; failures count with the failure score."""
        return self.table.mean

    @cached_property
    def error(self) -> StandardError:
        """The standard error of the score, with the clusters that it rests on and what they cost."""
        return standard_error(self.table)

    @property
    def standard_error(self) -> float:
        """The standard error of the score, clustered where clusters are given."""
        return self.error.value

    @cached_property
    def interval(self) -> Interval:
        """The confidence interval of the score, its method and its caveats."""
        return self.provenance.interval or mean_interval(self.table, level=self.level)

    @cached_property
    def variance(self) -> VarianceSplit:
        """How much of the variance is between questions, how much between draws, and the advice that follows."""
        return variance_split(self.table) if self._tells_repeats else VarianceSplit(advice=_UNTOLD)

    @property
    def _tells_repeats(self) -> bool:
        """Whether the repeats of a question are known to be draws of their own, and say something of each other."""
        return self.repeats == 1 or bool(self.distinct.distinct)

    @cached_property
    def answered(self) -> ScoreTable | None:
        """The scores of the draws that did not fail; None where all did."""
        return self.table.without_failures()

    @property
    def score_without_failures(self) -> float | None:
        """The score over the draws that did not fail; None where all did."""
        return None if self.answered is None else self.answered.mean

    @cached_property
    def leaked(self) -> tuple[Leak, ...]:
        """Its questions that stand in the program's own demonstrations or instructions: their answers are told."""
        asked = {question.question for question in self.questions} if self.provenance.leaks else set()
        return tuple(leak for leak in self.provenance.leaks if leak.question in asked)

    @property
    def without_leaks(self) -> Self | None:
        """The same without the questions that are `leaked`; None where there is no other."""
        if not self.leaked:
            return self
        told = {leak.question for leak in self.leaked}
        others = tuple(question for question in self.questions if question.question not in told)
        return replace(self, questions=others) if others else None

    @cached_property
    def distinct(self) -> DistinctDraws:
        """How many of the repeats are draws of their own, of this question and of all."""
        rows = [self._distinct(question.draws) for question in self.questions]
        made, draws = self.provenance, self._draws
        return Doubts(
            self._told_apart,
            draws=[draw.draw for draw in draws],
            rows=[tuple([draw.draw for draw in row if draw.draw]) for row in rows],
            unseen=sum((draw.strayed or not draw.draw) and not draw.is_lost for draw in draws),
            seen=bool(made.models) or any(draw.strayed or draw.draw for draw in draws),
            lost=sum(draw.is_lost for draw in draws),
            seeds=made.seeds,
            varies=any(one.temperature is None or one.temperature > 0 for one in made.models if not one.embeds),
        ).counted([tuple([draw.output for draw in row if not draw.is_lost]) for row in rows])

    @cached_property
    def _told_apart(self) -> Draws:
        return Draws(self.draw_tokens)

    def _distinct(self, draws: Sequence[DrawResult]) -> Sequence[DrawResult]:
        if len(draws) == 1:
            return draws
        seen: dict[str, DrawResult] = {}
        for number, draw in enumerate(draws):
            # An answer of which no draw is known is nobody's replay.
            seen.setdefault(self._told_apart.all_told(draw.draw) if draw.draw else f"#{number}", draw)
        return list(seen.values())

    @property
    def oldest(self) -> float | None:
        """When the oldest of its draws was bought, in Unix seconds; None where that is not known."""
        return min((draw.oldest for draw in self._draws if draw.oldest is not None), default=None)

    @property
    def newest(self) -> float | None:
        """When the newest of its draws was bought, in Unix seconds; None where that is not known."""
        return max((draw.newest for draw in self._draws if draw.newest is not None), default=None)

    @property
    def n(self) -> int:
        """The number of questions."""
        return len(self.questions)

    @property
    def repeats(self) -> int:
        """The number of repeats that were asked for."""
        return max([len(question.draws) for question in self.questions])

    @property
    def draws(self) -> list[DrawResult]:
        """Every answer, question by question."""
        return list(self._draws)

    @cached_property
    def _draws(self) -> tuple[DrawResult, ...]:
        return tuple([draw for question in self.questions for draw in question.draws])

    @cached_property
    def failures(self) -> int:
        """The number of answers that failed: the program raised, or the metric did."""
        return sum([draw.failed is not None for draw in self._draws])

    @cached_property
    def troubles(self) -> tuple[PredictorTrouble, ...]:
        """What went wrong around the calls of the answers, by predictor; of loaded ones when they were made."""
        return by_predictor(
            (question.question, question.preview, [trouble for draw in question.draws for trouble in draw.troubles])
            for question in self.questions
        )

    @property
    def run_id(self) -> str | None:
        """The run whose draws these are."""
        return self.provenance.run_id

    def pass_at_k(self, k: int) -> float:
        """The chance that at least one of k draws passes (score 1); NaN where fewer than k are known."""
        return pass_at_k(self.table, k) if k == 1 or self._tells_repeats else math.nan

    def pass_hat_k(self, k: int) -> float:
        """The chance that all of k draws pass (score 1); NaN where fewer than k are known."""
        return pass_hat_k(self.table, k) if k == 1 or self._tells_repeats else math.nan

    @property
    def flip_rate(self) -> float:
        """How often two draws of one question score differently; NaN where no two are known to be distinct."""
        return flip_rate(self.table) if self._tells_repeats else math.nan

    @property
    def consistency(self) -> float:
        """The share of questions whose draws all score the same; NaN where no two are known to be distinct."""
        return consistency(self.table) if self._tells_repeats else math.nan

    @cached_property
    def draw_tokens(self) -> frozenset[str]:
        """What tells each of the LM's answers that the score rests on (see `draw_tokens`)."""
        return frozenset(token for draw in self._draws if draw.draw for token in draw.draw.split("+"))

    @cached_property
    def draw_ids(self) -> frozenset[str]:
        """Every answer of an LM that the score rests on."""
        return frozenset(map(self._told_apart.told, self.draw_tokens))

    @property
    def tokens_per_answer(self) -> float:
        """Tokens that one answer is made of, on average."""
        return sum(draw.tokens for draw in self._draws) / len(self._draws)

    @property
    def cost(self) -> float | None:
        """US dollars that the answers are made of, whoever paid; None where a price is not known."""
        known = [draw.cost for draw in self._draws if draw.cost is not None]
        return math.fsum(known) if len(known) == len(self._draws) else None

    @property
    def cost_per_answer(self) -> float | None:
        """US dollars that one answer is made of, on average; None where a price is not known."""
        return None if self.cost is None else self.cost / len(self._draws)

    def summary(self) -> dict[str, Any]:
        """Return the numbers that people ask for, as plain data; None for what is infinite or unknown."""
        interval = self.interval
        return {
            "score": self.score,
            "standard_error": finite(self.standard_error),
            "interval": {
                "low": finite(interval.low),
                "high": finite(interval.high),
                "level": interval.level,
                "method": interval.method,
            },
            "caveats": list(interval.caveats),
            "n": self.n,
            "repeats": self.repeats,
            "distinct_draws": self.distinct.distinct,
            "known_draws": self.distinct.known,
            "failures": self.failures,
            "score_without_failures": self.score_without_failures,
            "leaked": len(self.leaked),
            "score_without_leaks": None if (others := self.without_leaks) is None else others.score,
            "variance_within": self.variance.within,
            "variance_between": self.variance.between,
            "advice": self.variance.advice,
            "clusters": self.error.clusters,
            "design_effect": self.error.design_effect,
        }
