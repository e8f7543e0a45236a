"""Which questions stand in a program's own demonstrations or instructions: it was told them beforehand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dspy_cachectl.boundary.secrets import scrub
from dspy_cachectl.fingerprints.modules import own_predictors
from dspy_cachectl.seen.words import Passages, head, text_of, words

_FEWEST = 3
"""In running text, an input of fewer words is looked for in vain: it may stand there by chance."""


@dataclass(frozen=True, slots=True)
class Leak:
    """A question that a program was told beforehand.

    Attributes:
        question: What identifies it in a report.
        where: Where it stands, for people: `"demos of 'answer'"`.
        is_exact: Whether it stands there word for word; otherwise blanks, capitals or punctuation differ.
    """

    question: str
    where: str
    is_exact: bool


def leaks_of(program: Any, questions: Mapping[str, Mapping[str, Any]]) -> tuple[Leak, ...]:
    """Return the questions that stand in the demonstrations or the instructions of a program.

    One stands in a demonstration where each input that this has is the same; or where an input stands, of three words
    at least, in its other fields or in the instructions. What several different questions have in common tells none.

    Args:
        program: A `dspy.Module`; of anything else nothing is known.
        questions: The inputs of each question, by what identifies it.
    """
    import dspy

    told = _Told(program) if isinstance(program, dspy.Module) else None
    if not told:
        return ()
    found: defaultdict[_Match, list[str]] = defaultdict(list)
    for question, inputs in questions.items():
        for match in told.matches(told.texts_of(inputs)):
            found[match].append(question)
    leaks: dict[str, Leak] = {}
    for match, some in found.items():
        if len({_words_of(questions[question]) for question in some}) > 1:
            continue
        for question in some:
            is_exact = told.has_exactly(match, questions[question])
            if question not in leaks or is_exact > leaks[question].is_exact:
                leaks[question] = Leak(question, match.where, is_exact)
    return tuple(leaks[question] for question in questions if question in leaks)


@dataclass(frozen=True, slots=True)
class _Match:
    """What of a question was found, and where; `passage` is -1 where a demonstration is the same."""

    where: str
    names: tuple[str, ...]
    texts: tuple[str, ...]
    passage: int = -1


class _Told:
    """What a program tells its LMs: instructions and descriptions as they are, demonstrations by their fields."""

    def __init__(self, program: Any) -> None:
        self._passages: list[tuple[str, str, str]] = []  # where, of which field, the text
        self._demos: list[tuple[str, dict[str, str]]] = []
        for name, predictor in own_predictors(program):
            whose = f"'{scrub(name)}'" if name else "the program"
            signature = predictor.signature
            texts = [signature.instructions, *(_described(field) for field in signature.fields.values())]
            self._passages += [(f"instructions of {whose}", "", text) for text in texts if text]
            for demo in predictor.demos:
                fields = {str(key): text_of(value) for key, value in demo.items()}
                self._demos.append((f"demos of {whose}", fields))
                self._passages += [(f"demos of {whose}", key, text) for key, text in fields.items()]
        self._searched = Passages(text for _, _, text in self._passages)
        self._names = {name for _, demo in self._demos for name in demo}
        self._by_names: dict[tuple[str, ...], list[_Same]] = {}

    def __bool__(self) -> bool:
        return bool(self._passages)

    def texts_of(self, inputs: Mapping[str, Any]) -> dict[str, str]:
        """Return the inputs as texts. A picture that no demonstration can have is not looked into."""
        texts = (str, Mapping, list, tuple)
        return {
            name: text_of(value) for name, value in inputs.items() if name in self._names or isinstance(value, texts)
        }

    def matches(self, fields: Mapping[str, str]) -> Iterator[_Match]:
        """Yield where a question may stand: whether that tells it from others is for who knows the others."""
        names = tuple(sorted(fields))
        if names not in self._by_names:
            self._by_names[names] = self._same_fields(names)
        heads = {name: head(text) for name, text in fields.items()}
        for same in self._by_names[names]:
            if tuple(heads[name] for name in same.names) in same.heads:
                texts = tuple(words(fields[name]) for name in same.names)
                if any(texts) and (where := same.where.get(texts)):
                    yield _Match(where, same.names, texts)
        yield from self._within(fields, heads)

    def _within(self, fields: Mapping[str, str], heads: Mapping[str, tuple[str, ...]]) -> Iterator[_Match]:
        """Yield where an input stands within something else."""
        for name, beginning in heads.items():
            if len(beginning) >= _FEWEST and self._searched.may_hold(beginning):
                text = words(fields[name])
                for passage in self._searched.holding(text):
                    where, field, _ = self._passages[passage]
                    if field != name:
                        yield _Match(where, (name,), (text,), passage)

    def _same_fields(self, names: tuple[str, ...]) -> list[_Same]:
        found: dict[tuple[str, ...], _Same] = {}
        for where, demo in self._demos:
            shared = tuple(name for name in names if name in demo)
            if shared:
                same = found.setdefault(shared, _Same(shared, set(), {}))
                same.heads.add(tuple(head(demo[name]) for name in shared))
                same.where.setdefault(tuple(words(demo[name]) for name in shared), where)
        return list(found.values())

    def has_exactly(self, match: _Match, fields: Mapping[str, Any]) -> bool:
        """Tell whether what was found stands there word for word."""
        texts = [text_of(fields[name]) for name in match.names]
        if match.passage >= 0:
            return texts[0] in self._passages[match.passage][2]
        return any(
            where == match.where and all(demo.get(name) == text for name, text in zip(match.names, texts, strict=True))
            for where, demo in self._demos
        )


@dataclass(frozen=True, slots=True)
class _Same:
    """Demonstrations by the inputs that they have in common with a question: their heads, and all of their words."""

    names: tuple[str, ...]
    heads: set[tuple[tuple[str, ...], ...]]
    where: dict[tuple[str, ...], str]


def _words_of(fields: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, words(text_of(value))) for name, value in fields.items()))


def _described(field: Any) -> str:
    return str((field.json_schema_extra or {}).get("desc") or "")
