"""A user's metric, made safe: one number for each answer, or the reason why there is none."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dspy

from dspy_cachectl.boundary.meant import question
from dspy_cachectl.boundary.secrets import scrub
from dspy_cachectl.context.evaluations import metric_name
from dspy_cachectl.errors import CachectlError, ConfigurationError
from dspy_cachectl.reports.apart.corpus import CorpusMetric
from dspy_cachectl.reports.apart.measures import MEASURES, is_measure
from dspy_cachectl.reports.results import LARGEST_SCORE

Metrics = Callable[..., Any] | Mapping[str, Callable[..., Any] | str]
"""A metric, or several by name: what is called, or the name of a measure."""

_RETURNS = (
    "a metric returns a number, a bool, {'score': ..., 'feedback': ...}, or something with a `score`, such as "
    "dspy.Prediction(score=..., feedback=...), and catches an error that is to count as a wrong answer"
)
_TRIED = 5
"""So many answers without a score are no accident, where none was before them that got one."""
_MOST_ARGUMENTS = 5


@dataclass(frozen=True, slots=True)
class Scored:
    """What a metric said of one answer.

    Attributes:
        score: The score; the failure score where there is none.
        failed: Why there is none, or None.
        kept: Whether it was said of this answer in an earlier evaluation.
        feedback: What the metric said beside the score, without secrets, or None.
        value: What a metric of the whole set needs of the answer, or None.
        error: What the metric raised, or None.
    """

    score: float
    failed: str | None = None
    kept: bool = False
    feedback: str | None = None
    value: Any = None
    error: Exception | None = None

    def for_dspy(self) -> float:
        """Return what `dspy.Evaluate` is given: a number, which has the feedback beside it."""
        return self.score if self.feedback is None else _Judged(self.score, feedback=self.feedback)


class _Judged(float, dspy.Prediction):  # type: ignore[misc]
    """A score as GEPA's metrics return it, whose feedback MLflow's autolog logs, and to all others a number.

    `dspy.Evaluate` adds all scores up after each answer, which takes minutes where they are no numbers.
    """

    def __new__(cls, score: float, **_: Any) -> _Judged:
        return super().__new__(cls, score)

    def __init__(self, score: float, *, feedback: str) -> None:
        dspy.Prediction.__init__(self, score=score, feedback=feedback)


class UnusableMetricError(BaseException):
    """Ends an evaluation whose metric gives no scores. No `Exception`: `dspy.Evaluate` would count it and go on.

    Args:
        error: What whoever evaluates is told.
    """

    def __init__(self, error: ConfigurationError) -> None:
        super().__init__(str(error))
        self.error = error


class FirstReturns:
    """Looks whether a metric gives scores at all, before much is paid for. Calls are made one at a time.

    Args:
        metric: The metric's name.
    """

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._left: int = _TRIED

    def check(self, scored: Scored) -> None:
        """Look at what was said of the next answer.

        Raises:
            UnusableMetricError: None of the first answers got a score: the metric raised, or returned something else.
        """
        if self._left <= 0:
            return
        self._left = self._left - 1 if scored.failed else 0
        if scored.failed and not self._left:
            raise UnusableMetricError(
                ConfigurationError(
                    f"the metric {self._metric!r} gave no score for any of the first {_TRIED} answers, so "
                    f"the evaluation ends here: {scored.failed}; {_RETURNS}"
                )
            )


@dataclass(frozen=True)
class Metric:
    """One of the metrics of an evaluation.

    Attributes:
        name: What it is called.
        function: What is called.
        hash: The `metric_fingerprint`.
    """

    name: str
    function: Callable[..., Any]
    hash: str

    @property
    def is_of_all(self) -> bool:
        """Whether it is a metric of the whole set of answers."""
        return isinstance(self.function, CorpusMetric)


def metrics_by_name(given: Any) -> dict[str, Any]:
    """Return the metrics that `evaluate` is given, by their names: one that is given alone has its own.

    Raises:
        ConfigurationError: If there is none, or a name is none, or one of them cannot be called.
    """
    if isinstance(given, Mapping):
        if not given or not all(isinstance(name, str) and name.strip() for name in given):
            raise ConfigurationError(f"several metrics are given by name: {{'exact': exact, ...}}, and not {given!r}")
        found = {scrub(name): metric for name, metric in given.items()}
    else:
        found = {given if isinstance(given, str) else metric_name(given): given}
    for name, metric in found.items():
        if not isinstance(metric, str):
            check_metric(metric)
        elif not is_measure(metric):
            guess = question(metric, MEASURES)
            raise ConfigurationError(
                f"the metric {name!r} is {metric!r}, which is not callable: {guess}{' ' if guess else ''}"
                f"what needs no code is {', '.join(map(repr, MEASURES))}, or as 'cost of PREDICTOR'"
            )
    if isinstance(next(iter(found.values())), (str, CorpusMetric)):
        raise ConfigurationError("the first metric judges each answer: {'exact': exact, 'cost': 'cost'}")
    return found


def check_metric(metric: Any) -> Callable[[Any, Any], Any]:
    """Return a metric as it is called: with an example and a prediction. Refuse one that cannot be.

    One that is made for GEPA and wants (gold, pred, trace, pred_name, pred_trace) is given None for the last three, as
    GEPA does where it scores a whole program; so is one that wants a trace.

    Raises:
        ConfigurationError: If it is not callable, or takes other arguments.
    """
    if not callable(metric):
        raise ConfigurationError(f"the metric is called with (example, prediction); {metric!r} is not callable")
    asked: Callable[[Any, Any], Any] = metric
    try:
        signature = inspect.signature(metric)
    except (TypeError, ValueError):
        return asked  # some callables of C do not tell; the first call will
    try:
        signature.bind(None, None)
    except TypeError as error:
        more = _more_arguments(signature)
        if not more:
            raise ConfigurationError(
                f"the metric {metric_name(metric)!r} is called with (example, prediction), or as GEPA's with (gold, "
                f"pred, trace, pred_name, pred_trace), and takes {signature}: {error}"
            ) from error
        return lambda example, prediction: metric(example, prediction, *([None] * more))
    return asked


def _more_arguments(signature: inspect.Signature) -> int:
    """Return how many arguments a metric wants beside two that are known to be None here; 0 where it is another's."""
    kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    wanted = [one for one in signature.parameters.values() if one.default is one.empty]
    more = [one.name.lower() for one in wanted if one.kind in kinds][2:]
    are_known = len(more) == _MOST_ARGUMENTS - 2 or all("trace" in name or "pred_name" in name for name in more)
    try:
        signature.bind(*([None] * (2 + len(more))))
    except TypeError:  # too few or too many of another kind
        return 0
    return len(more) if are_known else 0


def score_with(
    metric: Callable[[Any, Any], Any], example: Any, prediction: Any, *, failure_score: float, whole: bool = False
) -> Scored:
    """Ask a metric for a score. What it raises is a failure with a reason, never a silent 0.0.

    A replay's missing answer is no failure of the metric and goes through.

    Args:
        metric: As `check_metric` returns it.
        example: The example.
        prediction: What the program answered.
        failure_score: What counts where there is no score.
        whole: Whether it is a metric of the whole set, which says what it needs of the answer.
    """
    try:
        said = metric(example, prediction)
        if whole:
            return Scored(failure_score, value=said)
        value, feedback = _parts(said)
    except CachectlError:
        raise
    except Exception as error:  # noqa: BLE001 - a user's code; the reason is kept and counted
        return Scored(failure_score, f"the metric raised {type(error).__name__}: {error}", error=error)
    try:
        score = float(value)
    except (TypeError, ValueError):
        what = f"{type(said).__name__}, " + ("which has no score" if value is said else f"whose score is {value!r}")
        return Scored(failure_score, f"the metric returned {what}")
    if not abs(score) <= LARGEST_SCORE:
        return Scored(failure_score, f"the metric returned {score:g}; a score is a number up to {LARGEST_SCORE:g}")
    return Scored(score, feedback=feedback)


def _parts(said: Any) -> tuple[Any, str | None]:
    """Return the score in what a metric said, or all of it where it has no such part, and the feedback beside it."""
    if isinstance(said, (bool, int, float)):
        return said, None
    if isinstance(said, Mapping):
        value, feedback = said.get("score", said), said.get("feedback")
    else:
        value, feedback = getattr(said, "score", said), getattr(said, "feedback", None)
    if value is said or feedback is None:
        return value, None
    # Half of a surrogate pair has no UTF-8, and no server takes it.
    return value, scrub(str(feedback).encode("utf-8", "backslashreplace").decode()) or None
