"""One answer of a program to one question, as a line of JSON and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson

from dspy_cachectl.accounting.asked import AskedModel
from dspy_cachectl.accounting.spent import Spent
from dspy_cachectl.accounting.troubles import Mishap, Trouble
from dspy_cachectl.boundary.reading import holds_too_many
from dspy_cachectl.boundary.secrets import scrub
from dspy_cachectl.entries import values
from dspy_cachectl.entries.cleaning import cleaned
from dspy_cachectl.errors import CorruptEntryError
from dspy_cachectl.predictions.outputs import Output

LONGEST = 12 * 1024 * 1024
"""How long a line of JSON may be, in bytes: as text it takes four times that, and some texts are there at once."""
_NUMBER, _COUNT = (int, float, type(None)), (int, type(None))
_KINDS: dict[str, Any] = {
    "example_key": str,
    "occurrence": int,
    "repeat": int,
    "inputs": dict,
    "reference": dict,
    "cost": _NUMBER,
    "prompt_tokens": _COUNT,
    "completion_tokens": _COUNT,
    "cached_tokens": _COUNT,
    "cache_creation_tokens": _COUNT,
    "reasoning_tokens": _COUNT,
    "seconds": _NUMBER,
    "newest": _NUMBER,
    "strayed": bool,
}
COUNTS = range(2**31)
"""What a number may be that counts something."""
_LARGEST = 2**1023
"""What no number may reach: it has to fit into a float, since it is added, divided and shown."""
_TAG = orjson.dumps(values.TAG)
_BESIDE = ("typed", "returns", "completions")
"""What an output is beside its fields; what of it is empty is not written."""


@dataclass(frozen=True)
class Score:
    """What a metric said of a prediction.

    Attributes:
        label_key: The `label_key` of the example that it was judged against.
        score: The score.
        feedback: What the metric said beside it, without secrets, or None.
        judges: What answered the metric's own calls for it.
    """

    label_key: str
    score: float
    feedback: str | None = None
    judges: tuple[AskedModel, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON types; feedback and judges only where there are any."""
        said: dict[str, Any] = {} if self.feedback is None else {"feedback": scrub(self.feedback)}
        asked = {"judges": [one.as_dict() for one in self.judges]} if self.judges else {}
        return {"label_key": self.label_key, "score": self.score, **said, **asked}


@dataclass(frozen=True)
class Failure:
    """Why a program gave no prediction.

    Attributes:
        kind: The error's class.
        message: Its text, without secrets.
    """

    kind: str
    message: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an error."""
        return cls(kind=type(error).__qualname__, message=scrub(str(error)))


@dataclass(frozen=True)
class PredictionRow:
    """One answer of a program to one question.

    Attributes:
        example_key: Which question it answers; likewise `occurrence` (see `Question`).
        occurrence: See `Question`.
        repeat: Which of the repeats it is, from 0.
        inputs: What was asked, to be read by people.
        output: What the program returned, or None where it failed.
        reference: What was expected, to be read by people.
        scores: What metrics said of it, by `metric_fingerprint`.
        draws: The draws that it is made of: rollout ids or keys of entries.
        cost: US dollars, or None where the price is not known.
        prompt_tokens: Tokens read, or None.
        completion_tokens: Tokens written, or None.
        cached_tokens: Those of the read ones that the provider had in its own cache, or None.
        cache_creation_tokens: Those of the read ones that it wrote to its cache, or None.
        reasoning_tokens: Those of the written ones that were its reasoning, or None.
        seconds: How long the program took, or None.
        error: Why there is no output, or None.
        created: When the oldest of its draws was bought, in Unix seconds; 0 for now.
        newest: When the newest was; None for `created`.
        troubles: What went wrong around its calls, by predictor.
        spent: What its calls came to, by predictor.
        models: What answered them, and how it was asked.
        strayed: Whether calls were made out of sight while it was made: it may rest on others than `draws`.
    """

    example_key: str
    occurrence: int = 0
    repeat: int = 0
    inputs: Mapping[str, Any] = field(default_factory=dict)
    output: Output | None = None
    reference: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Score] = field(default_factory=dict)
    draws: tuple[Any, ...] = field(default=(), repr=False)
    cost: float | None = field(default=None, repr=False)
    prompt_tokens: int | None = field(default=None, repr=False)
    completion_tokens: int | None = field(default=None, repr=False)
    cached_tokens: int | None = field(default=None, repr=False)
    cache_creation_tokens: int | None = field(default=None, repr=False)
    reasoning_tokens: int | None = field(default=None, repr=False)
    seconds: float | None = field(default=None, repr=False)
    error: Failure | None = None
    created: float = field(default=0.0, repr=False)
    newest: float | None = field(default=None, repr=False)
    troubles: tuple[Trouble, ...] = field(default=(), repr=False)
    spent: tuple[Spent, ...] = field(default=(), repr=False)
    models: tuple[AskedModel, ...] = field(default=(), repr=False)
    strayed: bool = field(default=False, repr=False)

    @property
    def row_key(self) -> tuple[str, int, int]:
        """Which question and repeat it belongs to."""
        return self.example_key, self.occurrence, self.repeat


def encode(row: PredictionRow) -> bytes:
    """Return a row as one line of JSON, without a line break.

    Raises:
        values.UnstorableError: If it holds something that has no stored form.
    """
    plain = {
        **vars(row),
        "draws": list(row.draws),
        "scores": {name: score.as_dict() for name, score in row.scores.items()},
    }
    plain.pop("output")
    troubles, spent = (list(map(asdict, plain.pop(name))) for name in ("troubles", "spent"))
    models, strayed = [one.as_dict() for one in plain.pop("models")], plain.pop("strayed")
    made = {} if row.output is None else vars(row.output)
    plain["prediction"] = made.get("fields")
    plain["error"] = None if row.error is None else {"kind": row.error.kind, "message": scrub(row.error.message)}
    line = values.dumps(
        {
            **plain,
            **{name: made[name] for name in _BESIDE if made.get(name)},
            **({"troubles": troubles} if troubles else {}),
            **({"spent": spent} if spent else {}),
            **({"models": models} if models else {}),
            **({"strayed": True} if strayed else {}),
        }
    )[0]
    line = _without_secrets(line)
    if is_too_large(line):
        raise values.UnstorableError(f"it is too large: {len(line):,} bytes of JSON")
    return line


def _without_secrets(line: bytes) -> bytes:
    """Return a line whose question and label, which are there for people, hold no secret."""
    clean = cleaned(line)
    if clean is None:
        return line
    given = orjson.loads(line)
    if any(clean.get(name) != given.get(name) for name in ("prediction", "returns", "completions")):
        # It is served as it was given, or not at all.
        raise values.UnstorableError("a secret is in it: a key, or a value that this process holds as one")
    return orjson.dumps({**given, **{name: clean[name] for name in ("inputs", "reference", "error")}})


def loads(line: bytes) -> Any:
    """Return what a line of JSON holds. Where there is no tag in it, nobody walks over all its values to find one.

    Raises:
        CorruptEntryError: If the line is damaged.
    """
    return values.loads(line, tagged=_TAG in line)


def is_too_large(line: bytes) -> bool:
    """Tell whether a line is more than is ever written: long, or of so many values that it would fill the memory."""
    return len(line) > LONGEST or holds_too_many(line)


def decode(line: bytes, *, is_sound: bool = False) -> PredictionRow:
    """Return the row that `encode` made a line of.

    Args:
        line: The line.
        is_sound: Whether it was decoded before, and each part found to be of the kind that is written.

    Raises:
        CorruptEntryError: If the line is damaged.
    """
    plain = loads(line)
    try:
        prediction, error = plain.pop("prediction"), plain.pop("error")
        beside = {name: plain.pop(name) for name in _BESIDE if name in plain}
        plain["output"] = None if prediction is None else Output(prediction, **beside)
        plain["error"] = None if error is None else Failure(**error)
        plain["scores"] = {name: _score(score) for name, score in plain["scores"].items()}
        plain["models"] = tuple(AskedModel(**one) for one in plain.get("models", ()))
        plain["spent"] = tuple(Spent(**one) for one in plain.get("spent", ()))
        plain["troubles"] = tuple(Trouble(**trouble) for trouble in plain.get("troubles", ()))
        row = PredictionRow(**{**plain, "draws": tuple(plain["draws"]), "created": float(plain["created"])})
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as problem:
        raise CorruptEntryError(f"a row of predictions is damaged: {problem!r}") from problem
    wrong = None if is_sound else next(_wrong(row), None)
    if wrong is not None:
        raise CorruptEntryError(f"a row of predictions is damaged: its {wrong} is of a wrong kind")
    return row


def _score(plain: dict[str, Any]) -> Score:
    if "judges" not in plain:
        return Score(**plain)
    return Score(**{**plain, "judges": tuple(AskedModel(**one) for one in plain["judges"])})


def _wrong(row: PredictionRow) -> Iterator[str]:
    """Yield what of a row is not of the kind that is written: a hash or a cell cannot be made of it."""
    said = vars(row)
    yield from [name for name, kinds in _KINDS.items() if not _is(said[name], kinds)]
    yield from [name for name in ("occurrence", "repeat") if said[name] not in COUNTS]
    if row.output is not None:
        yield from (name for name in ("fields", "completions") if not isinstance(getattr(row.output, name), dict))
        is_list = isinstance(row.output.typed, (list, tuple))
        if not is_list or not all(isinstance(name, str) for name in (*row.output.typed, row.output.returns)):
            yield "output"
    texts = vars(row.error).values() if row.error is not None else ()
    parts: list[tuple[str, Any, Any]] = [("error", text, str) for text in texts]
    for score in row.scores.values():
        parts += [("scores", score.label_key, str), ("scores", score.score, (int, float))]
        parts += [("scores", score.feedback, (str, type(None)))]
    for trouble in row.troubles:
        parts += [("troubles", getattr(trouble, kind.value), int) for kind in Mishap]
    judges = (one for score in row.scores.values() for one in score.judges)
    yield from ("models" for one in (*row.models, *judges) if not one.is_sound)
    yield from ("spent" for one in row.spent if not one.is_sound)
    yield from (name for name, value, kinds in parts if not _is(value, kinds))


def _is(value: object, kinds: Any) -> bool:
    return isinstance(value, kinds) and not (isinstance(value, int) and not -_LARGEST < value < _LARGEST)


def merged(one: PredictionRow, other: PredictionRow) -> PredictionRow:
    """Return what two records of the same answer say together; `other` is the later one.

    An answer is worth more than an error. The scores of both are kept where they judge the same answer.
    """
    if (one.error is None) != (other.error is None):
        return one if one.error is None else other
    if _answer(one) != _answer(other):
        return other
    return replace(other, scores={**one.scores, **other.scores})


def _answer(row: PredictionRow) -> bytes | None:
    # As bytes: NaN is not equal to itself, and arrays do not compare.
    return None if row.output is None else values.dumps(vars(row.output))[0]


def readable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an example as they are shown in a file; what has no stored form is named by its class."""
    return {str(name): _shown(value) for name, value in fields.items()}


def _shown(value: Any) -> Any:
    import pydantic_core

    try:
        values.dumps(value)
    except values.UnstorableError:
        try:
            return pydantic_core.to_jsonable_python(
                value, bytes_mode="base64", fallback=lambda other: f"<{type(other).__qualname__}>"
            )
        except Exception:  # noqa: BLE001 - whatever a class of the user's raises there: the answer is paid for
            return f"<{type(value).__qualname__}>"
    return value
