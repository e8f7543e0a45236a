"""What went wrong around a program's calls, by predictor: what of it is reported, and in which words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dspy_cachectl.accounting.troubles import Mishap, Trouble
from dspy_cachectl.reports.texts import cut, plural
from dspy_cachectl.stores.base import OTHERS

TITLE = "Trouble, by predictor"
"""What the part of a report that tells of them is called."""

_MOST_QUESTIONS = 20
_MOST_PREDICTORS = 50
_QUESTIONS_SHOWN, _PREDICTORS_SHOWN = 2, 10
_PREVIEW, _NAME = 32, 24
_WORDS = {
    Mishap.UNPARSED: ("answer not parsed", "answers not parsed"),
    Mishap.FALL_BACK: ("fall-back to another adapter", "fall-backs to another adapter"),
    Mishap.JSON_MODE: ("call in JSON mode for want of a schema", "calls in JSON mode for want of a schema"),
    Mishap.TRUNCATED: ("answer truncated", "answers truncated"),
    Mishap.RETRY: ("request sent once more", "requests sent once more"),
}


@dataclass(frozen=True)
class Happened:
    """A question in which a predictor had trouble of one kind.

    Attributes:
        question: What identifies it.
        preview: The beginning of its inputs, for people.
        count: How often, over its repeats.
    """

    question: str
    preview: str
    count: int


@dataclass(frozen=True)
class PredictorTrouble:
    """The trouble of one kind that a predictor had.

    Attributes:
        predictor: Its name in the program.
        kind: What went wrong: a field of `Trouble`.
        count: How often, over all questions and repeats.
        questions: In how many questions.
        where: The first of these, in the order of the data set.
    """

    predictor: str
    kind: str
    count: int
    questions: int
    where: tuple[Happened, ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "where": list(map(asdict, self.where))}


def by_predictor(found: Iterable[tuple[str, str, Sequence[Trouble]]]) -> tuple[PredictorTrouble, ...]:
    """Return what went wrong, the predictor with the most of it first.

    Args:
        found: Of each question what identifies it, its preview, and the troubles of all its answers.
    """
    happened: defaultdict[str, defaultdict[str, list[Happened]]] = defaultdict(lambda: defaultdict(list))
    for question, preview, troubles in found:
        counts: defaultdict[tuple[str, str], int] = defaultdict(int)
        for trouble in troubles:
            for kind in Mishap:
                counts[trouble.predictor, kind.value] += getattr(trouble, kind.value)
        for (predictor, kind_name), count in counts.items():
            if count:
                happened[predictor][kind_name].append(Happened(question, preview, count))
    ordered = sorted(happened, key=lambda name: -sum(one.count for where in happened[name].values() for one in where))
    for name in ordered[_MOST_PREDICTORS:]:
        for kind_name, where in happened.pop(name).items():
            happened[OTHERS][kind_name] += where
    return tuple(
        _of(predictor, kind.value, happened[predictor][kind.value])
        for predictor in [*ordered[:_MOST_PREDICTORS], *([OTHERS] if OTHERS in happened else [])]
        for kind in Mishap
        if happened[predictor].get(kind.value)
    )


def _of(predictor: str, kind: str, where: Sequence[Happened]) -> PredictorTrouble:
    return PredictorTrouble(
        predictor,
        kind,
        count=sum(one.count for one in where),
        questions=len({one.question for one in where}),
        where=tuple(where[:_MOST_QUESTIONS]),
    )


def totals(troubles: Iterable[PredictorTrouble]) -> dict[str, int]:
    """Return how often each thing went wrong in all; nothing where nothing did."""
    found: dict[str, int] = {}
    for one in troubles:
        found[one.kind] = found.get(one.kind, 0) + one.count
    return found


def trouble_rows(troubles: Sequence[PredictorTrouble]) -> Iterator[tuple[str, str]]:
    """Yield what is shown of them: the predictor, and in words what went wrong in which questions."""
    names = list(dict.fromkeys(one.predictor for one in troubles))
    for name in names[:_PREDICTORS_SHOWN]:
        said = (_in_words(one) for one in troubles if one.predictor == name)
        yield cut(name, _NAME), "; ".join(said)
    if len(names) > _PREDICTORS_SHOWN:
        yield "and more", f"{plural(len(names) - _PREDICTORS_SHOWN, 'more predictor')}; see report.troubles"


def counts_of(trouble: Trouble) -> Iterator[tuple[str, int]]:
    """Yield what went wrong, and how often."""
    yield from ((kind.value, count) for kind in Mishap if (count := getattr(trouble, kind.value)))


def said_of(kind: str, count: int) -> str:
    """Write how often something went wrong.

    Args:
        kind: What: a field of `Trouble`.
        count: How often.
    """
    return plural(count, *_WORDS[Mishap(kind)])


def _in_words(trouble: PredictorTrouble) -> str:
    shown = [cut(one.preview, _PREVIEW) for one in trouble.where[:_QUESTIONS_SHOWN]]
    more = trouble.questions - len(shown)
    where = " · ".join(f"“{preview}”" for preview in shown) + (f" and {more:,} more" if more else "")
    return f"{said_of(trouble.kind, trouble.count)} ({where})"
