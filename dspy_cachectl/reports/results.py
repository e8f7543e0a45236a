"""The answers of an evaluation, question by question, as a report holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator

from dspy_cachectl.accounting.asked import AskedModel
from dspy_cachectl.accounting.spent import Spent
from dspy_cachectl.accounting.troubles import Trouble
from dspy_cachectl.boundary.secrets import scrub, told_apart
from dspy_cachectl.reports.texts import plural
from dspy_cachectl.statistics.intervals import Interval

_SHOWN = 10
LARGEST_SCORE = 1e100
"""The square of it, which variances are made of, is a number still."""

_NAMES = frozenset({"phase", "role", "model"})


def _score(value: float) -> float:
    if not abs(value) <= LARGEST_SCORE:
        raise ValueError("a score is a number, and no larger")
    return value


def _counters(values: Mapping[str, Any]) -> Mapping[str, Any]:
    rows = values.get("by", ())
    if not (isinstance(rows, (list, tuple)) and all(isinstance(row, Mapping) for row in rows)):
        raise ValueError("rows of counters are dictionaries")
    _check({name: value for name, value in values.items() if name != "by"})
    for row in rows:
        if not all(isinstance(row.get(name), (str, type(None))) for name in _NAMES):
            raise ValueError("the names of a row are texts")
        _check({name: value for name, value in row.items() if name not in _NAMES})
    return values


def _check(counts: Mapping[str, Any]) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ValueError(f"{name} is no count")


Score = Annotated[float, AfterValidator(_score)]
Counters = Annotated[Mapping[str, Any], AfterValidator(_counters)]
"""What a saved report is to hold there; others are refused when it is read."""


def _without_secrets(said: OtherScore | DrawResult) -> None:
    for name in ("failed", "feedback"):
        if (text := getattr(said, name)) is not None:
            object.__setattr__(said, name, scrub(text))


@dataclass(frozen=True)
class OtherMetric:
    """A further metric of an evaluation: see the fields of a report's `Provenance`.

    Attributes:
        metric: See there, and so all.
        metric_hash: See there.
        judges: See there.
        rescored: See there.
        interval: See there.
    """

    metric: str
    metric_hash: str
    judges: tuple[AskedModel, ...] = ()
    rescored: int = 0
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class OtherScore:
    """What a further metric said of an answer. Built without secrets, too.

    Attributes:
        metric: The metric's name.
        score: What it gave; likewise `failed` and `feedback`: see `DrawResult`.
        failed: See `score`.
        feedback: See `score`.
        value: Of a metric of the whole set, what it needs of the answer, until it is known what the set comes to.
    """

    metric: str
    score: Score
    failed: str | None = None
    feedback: str | None = None
    value: Any = None

    def __post_init__(self) -> None:
        _without_secrets(self)


@dataclass(frozen=True, slots=True)
class DrawResult:
    """One answer to one question. Built without secrets: a report says the same on a screen and in a file.

    Attributes:
        score: What the metric gave; the failure score where it or the program failed.
        failed: Why it failed, or None.
        feedback: What the metric said beside the score, or None.
        draw: What identifies the LM's answers behind it. Two results with one draw are one draw.
        output: A hash of what the program answered.
        loaded: Whether it was loaded from the kept predictions.
        requests: Responses bought for it when it was made.
        tokens: Tokens it is made of, whoever paid for them.
        cached_tokens: Those that the provider read from its own cache; likewise `cache_creation_tokens`, which it wrote
            to it, and `reasoning_tokens`, which were its reasoning.
        cost: US dollars it is made of; None where the price of one of its LM's answers is not known.
        seconds: Seconds of the provider it is made of.
        oldest: When its oldest LM answer was bought, in Unix seconds, or None.
        newest: When its newest was.
        troubles: What went wrong around its calls, by predictor.
        spent: What its calls came to, by predictor.
        strayed: Whether LM calls were made out of sight while it was made: it may rest on others than `draw` says.
        others: What further metrics said of it.
    """

    score: Score
    failed: str | None = None
    feedback: str | None = None
    draw: str = ""
    output: str = ""
    loaded: bool = False
    requests: int = 0
    tokens: int = 0
    cached_tokens: int = 0
    cache_creation_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float | None = 0.0
    seconds: float = 0.0
    oldest: float | None = None
    newest: float | None = None
    troubles: tuple[Trouble, ...] = ()
    spent: tuple[Spent, ...] = ()
    strayed: bool = False
    others: tuple[OtherScore, ...] = ()

    @property
    def is_lost(self) -> bool:
        """Whether there is no draw: it failed before anything was answered."""
        return self.failed is not None and not self.draw and not self.output

    def __post_init__(self) -> None:
        _without_secrets(self)


@dataclass(frozen=True, slots=True)
class QuestionResult:
    """One question of the data set. Built without secrets, too.

    Attributes:
        question: What identifies it: a hash of its inputs, and its number among equals.
        preview: The beginning of its inputs, for people.
        draws: Its answers, one a repeat.
        cluster: The cluster that it belongs to, as text, or None.
        labels: A hash of what its example says beside its inputs; empty where that is not known.
        slices: The names of the slices that it is in.
    """

    question: str
    preview: str
    draws: tuple[DrawResult, ...]
    cluster: str | None = None
    labels: str = ""
    slices: tuple[str, ...] = ()

    def __repr__(self) -> str:
        scores = ", ".join("failed" if draw.failed is not None else f"{draw.score:.4g}" for draw in self.draws[:_SHOWN])
        more = f", and {len(self.draws) - _SHOWN:,} more" if len(self.draws) > _SHOWN else ""
        return f"<QuestionResult {self.preview!r}: {scores}{more}>"

    @property
    def asked(self) -> str:
        """The hash of its inputs: the same for equal questions."""
        return self.question.partition("#")[0]

    def __post_init__(self) -> None:
        object.__setattr__(self, "preview", scrub(self.preview))
        if self.cluster is not None:
            object.__setattr__(self, "cluster", told_apart(self.cluster))
        object.__setattr__(self, "slices", tuple(map(told_apart, self.slices)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """How an evaluation stopped by itself.

    Attributes:
        by: What it was looked at for: `"width"`, that of its interval, or `"comparison"`, with another one; or
            `"budget"`, where one was spent.
        looks: How often it was looked at.
        asked: How many questions were asked until then.
        offered: How many there were to ask.
        seed: What the random order of the questions is told by.
    """

    by: str
    looks: int
    asked: int
    offered: int
    seed: int

    def __str__(self) -> str:
        much = f"{self.asked:,} of {plural(self.offered, 'question')}, in random order (seed {self.seed})"
        if self.by == "budget":
            return f"its budget was spent: {much}"
        return f"it was looked at while it grew: {much}, {plural(self.looks, 'look')}"
