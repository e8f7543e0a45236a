"""Where an answer came from and what it cost, as bytes and back.

Numbers are in a fixed form, so that what a hit adds up is there without any parsing; texts are a list of JSON in a
fixed order. Together they are all that an entry is filed under, told by and counted with, without a look at the answer.
What follows in the list is of a later time, and passed over.
"""

from __future__ import annotations

import functools
import itertools
import math
import struct
from dataclasses import dataclass
from typing import Any

import orjson
import pydantic

from dspy_cachectl.boundary.reading import parsed
from dspy_cachectl.entries.token_counts import NAMES
from dspy_cachectl.entries.values import UnstorableError
from dspy_cachectl.errors import CorruptEntryError

NUMBERS = struct.Struct(">B3x4d7q")
"""What is a number: bits, then `_FLOATS`, then `_COUNTS`."""

_TIMES, _TIMES_FROM = struct.Struct(">2d"), 4
"""Which of them two entries hardly share: `created` and `seconds`."""

_NO_TIMES = bytes(_TIMES.size)
_NONE_TO_ADD = "a number in it is none that can be added up"

_FLOATS = ("created", "seconds", "cost", "temperature")
_COUNTS = (
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cache_creation_tokens",
    "reasoning_tokens",
    "ordinal",
)
_LENT, _TRUNCATED, _KNOWN, _PERHAPS_KNOWN = 1, 2, 4, 8
_NO_COUNT = -(2**63)
_NO_NUMBER = math.nan

_TEXTS = ("kind", "model", "endpoint", "phase", "role", "run_id", "content", "rollout_id")
_LISTS = ("response_ids", "answered_by", "system_fingerprints")
_SIZE = len(_TEXTS) + len(_LISTS)
_OPTIONAL = frozenset({"endpoint", "role", "run_id"})
_SHORT = 2048
"""Bytes of texts that are kept."""


@dataclass(frozen=True)
class Origin:
    """Where an answer came from and what it cost.

    Attributes:
        kind: What was asked for (`policy.Kind`'s values).
        model: The model's name.
        endpoint: The endpoint's identity, or None for the provider's own.
        phase: The phase that bought it.
        role: The LM's role in the program, or None.
        run_id: The run that it is a draw of, or None.
        rollout_id: The rollout id in the key, or None.
        ordinal: Which asking of this request it was within the run, from 0; None outside runs.
        temperature: The temperature that was sent, or None.
        lent: Whether the phase lent that temperature.
        created: When it was bought, in Unix seconds.
        seconds: How long the provider took, retries included; 0 where it was sent with a batch.
        requests: How many responses of the provider it is made of.
        prompt_tokens: Tokens read, or None where the provider did not say.
        completion_tokens: Tokens written, or None.
        cached_tokens: Those of the read ones that the provider had in its own cache, or None.
        cache_creation_tokens: Those of the read ones that it wrote to its cache, or None.
        reasoning_tokens: Those of the written ones that were its reasoning, or None.
        cost: US dollars, or None where the price is not known.
        response_ids: The provider's ids of the responses.
        truncated: Whether an answer was cut at the token limit.
        content: A hash of what it says (see `AnswerFacts`).
        known: Whether it was another draw's already when it was bought: then something on the way to the model caches.
            None where that cannot be known.
        answered_by: The names of the models that answered, as the provider says them.
        system_fingerprints: What the provider calls the state of its servers that answered, where it says so.
    """

    kind: str
    model: str
    endpoint: str | None = None
    phase: str = ""
    role: str | None = None
    run_id: str | None = None
    rollout_id: Any = None
    ordinal: int | None = None
    temperature: float | None = None
    lent: bool = False
    created: float = 0.0
    seconds: float = 0.0
    requests: int = 1
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cache_creation_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: float | None = None
    response_ids: tuple[str, ...] = ()
    truncated: bool = False
    content: str = ""
    known: bool | None = False
    answered_by: tuple[str, ...] = ()
    system_fingerprints: tuple[str, ...] = ()

    @functools.cached_property
    def saves(self) -> dict[str, float]:
        """What whoever is served it does not pay again, by the counters of a `Tally`: a hit only adds it up."""
        fields = vars(self)
        return {saved: amount for name, saved in _SAVED if (amount := fields[name])}


_SAVED = [(name, f"{name}_saved") for name in (*NAMES, "cost", "seconds")]


def made_at_once(**fields: Any) -> Origin:
    """Return an origin of all of its fields: a frozen class guards each of them, which takes longer than all else."""
    return _made_of(fields)


def _made_of(fields: dict[str, Any]) -> Origin:
    origin: Origin = object.__new__(Origin)
    object.__setattr__(origin, "__dict__", fields)
    return origin


def with_seconds(origin: Origin, seconds: float) -> Origin:
    """Return an origin that took another time."""
    fields = {**vars(origin), "seconds": seconds}
    fields.pop("saves", None)  # which rests on it
    return _made_of(fields)


def written(origin: Origin) -> tuple[bytes, bytes]:
    """Return the numbers and the texts of an origin as bytes.

    Raises:
        UnstorableError: If something in it has no such form.
    """
    bits = origin.lent * _LENT | origin.truncated * _TRUNCATED
    bits |= {False: 0, True: _KNOWN, None: _PERHAPS_KNOWN}[origin.known]
    floats = (origin.created, origin.seconds, _finite(origin.cost), _finite(origin.temperature))
    counts = [_NO_COUNT if (count := getattr(origin, name)) is None else count for name in _COUNTS]
    try:
        return NUMBERS.pack(bits, *floats, *counts), orjson.dumps(
            [
                origin.kind,
                origin.model,
                origin.endpoint,
                origin.phase,
                origin.role,
                origin.run_id,
                origin.content,
                origin.rollout_id,
                origin.response_ids,
                origin.answered_by,
                origin.system_fingerprints,
            ],
            default=_plain_rollout,
        )
    except (TypeError, struct.error) as error:
        raise UnstorableError(f"where the answer came from cannot be written: {error}") from error


def read(numbers: bytes, texts: bytes, *, are_many_alike: bool = False) -> Origin:
    """Return the origin that was written.

    Args:
        numbers: Bytes that begin with its numbers.
        texts: Its texts.
        are_many_alike: Whether many differ in their times only, as those of vectors do, whose responses have no ids:
            what they have in common is kept.

    Raises:
        CorruptEntryError: If they are none.
    """
    if are_many_alike and len(texts) <= _SHORT:
        alike = b"".join((numbers[:_TIMES_FROM], _NO_TIMES, numbers[_TIMES_FROM + _TIMES.size : NUMBERS.size]))
        fields = _fields_before(alike, texts).copy()
        fields["created"], fields["seconds"] = _TIMES.unpack_from(numbers, _TIMES_FROM)
    else:
        fields = _fields(numbers, texts)
    if not math.isfinite(fields["created"] + fields["seconds"]):
        raise _not_one(_NONE_TO_ADD)
    return _made_of(fields)


def _fields(numbers: bytes, texts: bytes) -> dict[str, Any]:
    """Return the fields of the origin that was written."""
    bits, created, seconds, cost, temperature, requests, prompt, completion, cached, creation, reasoning, ordinal = (
        NUMBERS.unpack_from(numbers)
    )
    if math.isinf(cost) or math.isinf(temperature):
        raise _not_one(_NONE_TO_ADD)
    kind, model, endpoint, phase, role, run_id, content, rollout_id, ids, answered_by, fingerprints = _said(texts)
    return {
        "kind": kind,
        "model": model,
        "endpoint": endpoint,
        "phase": phase,
        "role": role,
        "run_id": run_id,
        "rollout_id": rollout_id,
        "ordinal": None if ordinal == _NO_COUNT else ordinal,
        "temperature": None if math.isnan(temperature) else temperature,
        "lent": bool(bits & _LENT),
        "created": created,
        "seconds": seconds,
        "requests": requests,
        "prompt_tokens": None if prompt == _NO_COUNT else prompt,
        "completion_tokens": None if completion == _NO_COUNT else completion,
        "cached_tokens": None if cached == _NO_COUNT else cached,
        "cache_creation_tokens": None if creation == _NO_COUNT else creation,
        "reasoning_tokens": None if reasoning == _NO_COUNT else reasoning,
        "cost": None if math.isnan(cost) else cost,
        "response_ids": ids,
        "truncated": bool(bits & _TRUNCATED),
        "content": content,
        "known": None if bits & _PERHAPS_KNOWN else bool(bits & _KNOWN),
        "answered_by": answered_by,
        "system_fingerprints": fingerprints,
    }


_fields_before = functools.lru_cache(maxsize=256)(_fields)


def _said(texts: bytes) -> tuple[Any, ...]:
    """Return the texts that were written, in their order."""
    said = parsed(texts)
    if type(said) is not list or tuple(map(type, said[:_SIZE])) not in _fitting():
        raise _not_one(_what_is_wrong(said))
    ids, answered_by, fingerprints = said[len(_TEXTS) : _SIZE]
    if not _STR.issuperset(map(type, ids + answered_by + fingerprints)):
        raise _not_one(_what_is_wrong(said))
    return (*said[: len(_TEXTS)], tuple(ids), tuple(answered_by), tuple(fingerprints))


def as_json(origin: Origin) -> dict[str, Any]:
    """Return an origin as JSON values by name, for cassettes.

    Raises:
        UnstorableError: If something in it has no such form.
    """
    try:
        found: dict[str, Any] = orjson.loads(orjson.dumps(origin, default=_plain_rollout))
    except TypeError as error:
        raise UnstorableError(f"where the answer came from cannot be written as JSON: {error}") from error
    return found


def from_json(origin: dict[str, Any]) -> Origin:
    """Return the origin that `as_json` took apart.

    Raises:
        CorruptEntryError: If it is none.
    """
    try:
        return _origins().validate_json(orjson.dumps(origin), strict=True)
    except pydantic.ValidationError as error:
        # Without what is in it: a message is shown, and an origin may be anybody's.
        wrong = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, wrong["loc"])) or "it"
        raise _not_one(f"{where}: {wrong['msg']}") from error


_STR = frozenset({str})


@functools.lru_cache(maxsize=1)
def _fitting() -> frozenset[tuple[type, ...]]:
    """Return which types the texts may have, all combinations of them."""
    none = type(None)
    optional = dict.fromkeys(_OPTIONAL, (str, none))
    rollout = (none, int, str, float, bool, list, dict)
    kinds = [rollout if name == "rollout_id" else optional.get(name, (str,)) for name in _TEXTS]
    return frozenset(itertools.product(*kinds, *[(list,) for _ in _LISTS]))


def _what_is_wrong(said: Any) -> str:
    names = (*_TEXTS, *_LISTS)
    if type(said) is not list or len(said) < len(names):
        return "something is missing in it"
    for name, value in zip(names, said, strict=False):
        if name in _LISTS and not (type(value) is list and _STR.issuperset(map(type, value))):
            return f"{name}: it is no list of texts"
        if (
            name in _TEXTS
            and type(value) is not str
            and name != "rollout_id"
            and not (value is None and name in _OPTIONAL)
        ):
            return f"{name}: it is no text"
    return "it is none"


def _not_one(why: str) -> CorruptEntryError:
    return CorruptEntryError(f"the entry's origin cannot be decoded: {why}")


@functools.lru_cache(maxsize=1)
def _origins() -> pydantic.TypeAdapter[Origin]:
    # Made when it is needed: commands that decode no entry start without it.
    return pydantic.TypeAdapter(Origin)


def _finite(number: float | None) -> float:
    return _NO_NUMBER if number is None or number in {math.inf, -math.inf} else number


def _plain_rollout(value: Any) -> str:
    # A program may use any value as its rollout id; people only need to recognise it.
    return repr(value)
