"""What is on a page, as plain values. Whatever is text in it was written by somebody, and is only ever shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dspy_cachectl.boundary.secrets import scrub_surely
from dspy_cachectl.boundary.shown import harmless, harmless_lines

Said = tuple[str, str]
"""A text and how it is meant: a tone of `reports.sheets`, or whose words they are."""


_LEFT_OUT = "[left out: the page would be too large]"
_SHORT = 200


def line(text: str) -> str:
    """Return a text as it is shown in one line."""
    return harmless(scrub_surely(text))


class Texts:
    """The long texts of a page, each kept once, in the order in which they came.

    Args:
        most: How many characters they may have together. What does not fit is left out; short ones always fit.

    Attributes:
        all: The texts.
        left_out: How many times one was left out.
    """

    def __init__(self, most: int) -> None:
        self._numbers: dict[str, int] = {}
        self._room = most
        self.all: list[str] = []
        self.left_out = 0

    def number(self, text: str) -> int:
        """Return the number of a text among all."""
        found = self._numbers.get(text)
        if found is None and len(text) > max(self._room, _SHORT):
            self.left_out += 1
            return self.number(_LEFT_OUT)
        if found is None:
            self._room -= len(text)
            found = self._numbers[text] = len(self.all)
            self.all.append(harmless_lines(scrub_surely(text)))
        return found

    def named(self, texts: Sequence[tuple[str, str]]) -> list[tuple[str, int]]:
        """Return texts with their titles, each as its number."""
        return [(line(title), self.number(text)) for title, text in texts]


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """A score with its interval. What is a slice of the questions, or another metric, is a row of its own.

    Attributes:
        name: What is scored.
        n: Of how many questions.
        score: The score.
        low: Where its interval begins; None where it has no end.
        high: Where it ends.
        text: The score in words.
        ends: The interval in words.
    """

    name: str
    n: int
    score: float
    low: float | None
    high: float | None
    text: str
    ends: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A call of an LM behind an answer.

    Attributes:
        prompt: Its messages: the role of each, and the number of its text.
        answer: What came back, likewise; the title of a piece in place of a role.
    """

    prompt: list[tuple[str, int]]
    answer: list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a question.

    Attributes:
        score: Its score.
        failed: The number of the text that says why there is no other, or None.
        facts: What it is made of, in words: labels and texts.
        cost: US dollars it is made of, to sort by, 0 where that is not known; likewise `seconds` of the provider.
        seconds: See `cost`.
        prediction: The fields of what the program returned, with the number of each text.
        feedback: The number of what the metric said beside the score, or None.
        calls: The LM's calls behind it, as far as they are known.
        troubles: What went wrong around its calls: the predictor, and what in words.
    """

    score: float
    failed: int | None = None
    facts: list[tuple[str, str]] = field(default_factory=list)
    cost: float = 0.0
    seconds: float = 0.0
    prediction: list[tuple[str, int]] = field(default_factory=list)
    feedback: int | None = None
    calls: list[Asked] = field(default_factory=list)
    troubles: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Asking:
    """A question.

    Attributes:
        id: What identifies it.
        preview: The beginning of it.
        cluster: The cluster that it belongs to, or None.
        inputs: Its fields, with the number of each text.
        expected: What was expected, likewise.
        answers: Its answers on each side, one a repeat; None where a side has not got the question.
        means: The score of each side, to which a draw counts once however often it was replayed; None likewise.
        change: The candidate's score less the baseline's; None where they are not compared.
        slices: The names of the slices that it is in.
    """

    id: str
    preview: str
    cluster: str | None
    inputs: list[tuple[str, int]]
    expected: list[tuple[str, int]]
    answers: list[list[Answer] | None]
    means: list[float | None]
    change: float | None = None
    slices: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Difference:
    """Something in which two programs differ, word by word.

    Attributes:
        what: What it is.
        words: The words, each with whose they are: `both`, `first`, `second`, or `cut` for equal ones left out.
    """

    what: str
    words: list[Said]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of cells under a title.

    Attributes:
        title: What they are about.
        header: The name of each column; empty where none needs one.
        rows: The cells, each with its tone.
        kind: `facts` or `notes`, or `table` with a header.
        is_aside: Whether it is folded away at first.
    """

    title: str
    header: list[str]
    rows: list[list[Said]]
    kind: str
    is_aside: bool


@dataclass(frozen=True, slots=True)
class Mishaps:
    """What went wrong around a predictor.

    Attributes:
        side: On which side, by its number.
        predictor: Its name.
        said: What went wrong, in words.
        count: How often.
        questions: In how many questions.
    """

    side: int
    predictor: str
    said: str
    count: int
    questions: int


@dataclass(frozen=True, slots=True)
class Page:
    """Everything on a page.

    Attributes:
        title: What it is.
        headline: What was found, and how it is meant.
        foot: What made it, and when.
        sides: The name of the report; of a comparison those of both, the baseline first.
        scores: The scores, each in a row.
        difference: The difference of two sides in units of the score; None where there is one.
        scale: The lowest and the highest score.
        blocks: What is said of it, in the order in which it is shown; what is folded away comes last.
        mishaps: What went wrong, by predictor.
        differences: In what two programs differ; None where there are not two.
        programs: What is to be said of `differences`, in a sentence.
        prices: What an answer of each of two sides cost, as scores; empty where it is not known.
        price_unit: In which unit.
        questions: The questions, in the order of the data set.
        texts: The texts that are named by their number.
    """

    title: str
    headline: Said
    foot: str
    sides: list[str]
    scores: list[ScoreRow]
    scale: tuple[float, float]
    blocks: list[Block]
    questions: list[Asking]
    texts: list[str]
    mishaps: list[Mishaps] = field(default_factory=list)
    difference: ScoreRow | None = None
    differences: list[Difference] | None = None
    programs: str = ""
    prices: list[ScoreRow] = field(default_factory=list)
    price_unit: str = ""

    def as_json(self) -> bytes:
        """Return it as JSON; numbers that JSON has not are null."""
        import orjson

        encoded: bytes = orjson.dumps(self, default=_plain)
        return encoded


def _plain(value: Any) -> Any:
    return list(value)
