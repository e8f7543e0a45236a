"""Entries that were decoded once: each hit is given an answer of its own, without decoding and validating it again.

A program may change what a hit gave it, so no two hits share what can be changed. What can not is shared: texts, and of
DSPy's frozen responses all but what the provider said in its own words. What is neither is decoded anew each time.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import orjson
import pydantic
from dspy._vendor.lm15.serde import response_from_dict
from dspy.clients.base_lm import BaseLM
from dspy.clients.call_result import CACHE_FORMAT, CallResult
from dspy.clients.legacy_outputs import value as field
from dspy.lm15 import Response

from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.entries import records, values
from dspy_cachectl.entries.moulds import Moulds
from dspy_cachectl.errors import CorruptEntryError

_SHARED = frozenset({str, int, float, bool, type(None)})
"""The types of what cannot be changed, and is nearly all that answers hold."""

_OVERHEAD = 3000
"""Bytes that Python takes for an entry that is decoded, beside as many again as it has."""

_MOULDS = Moulds()

Copy = Callable[[], Any]


class Decoded:
    """An entry that was decoded: where it came from, and its answer for whoever asks.

    Args:
        data: The bytes of the entry.
        key: The key that it is filed under (see `records.decode`).

    Attributes:
        data: Those.
        origin: Where the answer came from.
        is_checked: Whether it is known that DSPy makes something of the answer: see `checked`.
        vector: The numbers of the vector that the answer is; None where it is none.

    Raises:
        CorruptEntryError: If they are damaged or are not an entry.
        FormatVersionError: If a newer version of this package wrote them.
    """

    __slots__ = ("_first", "_is_first", "_make", "_texts", "data", "is_checked", "origin", "vector")

    def __init__(self, data: bytes, key: str | None = None) -> None:
        opened = records.open_answer(data, key)
        self.data, self.origin = data, opened.origin
        self.vector = opened.vector
        # Made at once: whoever serves an entry has to know that its answer can be.
        first = None if self.vector is not None else _hit_of(opened)
        self._first: list[tuple[Any, CallResult | None]] = [(first, None)]
        self._is_first, self.is_checked = True, not _is_native(first)
        self._make: Copy | None = None
        self._texts: tuple[list[Any], float | None, str] | None = None  # with what else is the same for each hit

    def checked(self) -> Decoded:
        """Return it where DSPy makes something of its answer, which is then made already.

        Raises:
            CorruptEntryError: If DSPy makes nothing of it.
        """
        if not self.is_checked:
            answer = self.answer()
            self._first.append((answer, _checked(answer)))
            self.is_checked = True
        return self

    def answer(self) -> Any:
        """Return what DSPy finds in its cache."""
        if self.vector is not None:
            return [self.vector.tolist()]
        try:
            return self._first.pop()[0]  # as one thread only can
        except IndexError:
            return _hit_of(records.open_answer(self.data))

    def result(self, lm: BaseLM, sent: Callable[[], dict[str, Any]]) -> CallResult:
        """Return what DSPy makes of it for a call.

        Args:
            lm: Its LM.
            sent: Returns what DSPy sends: the LM's options and the call's, which most hits do not need.
        """
        # At the first hit it is not known whether there will be another: what is made for those costs more than it
        # saves. Two threads may both make it.
        if self._make is None and not self._is_first:
            self._make = self._maker(lm, sent())
        self._is_first = False
        if self._make is None:
            try:
                answer, made = self._first.pop()
            except IndexError:
                answer, made = self.answer(), None
            return _loaded(answer, lm, sent()) if made is None else made
        made = self._make()
        if self._texts is None or not _makes_texts(lm):
            return made if isinstance(made, CallResult) else _loaded(made, lm, sent())
        texts, cost, model = self._texts
        return CallResult(outputs=texts[:], cost=cost, raw=made, response_model=model, cache_hit=True)

    def _maker(self, lm: BaseLM, options: dict[str, Any]) -> Copy | None:
        """Return what makes the answer of each further hit: a `CallResult`, or a response of LiteLLM."""
        answer = self.answer()
        if _is_native(answer):
            return _of_native(_loaded_native(answer), answer)
        if not isinstance(answer, pydantic.BaseModel):
            return None
        copy = _copy_of(answer)
        # Whether probabilities are asked for is in the key, and so the same for each hit.
        if copy is not None and _makes_texts(lm) and not (options.get("logprobs") or lm.kwargs.get("logprobs")):
            first = CallResult.legacy(lm, answer, kwargs=options)
            if all(type(one) in _SHARED for one in first.outputs) and field(answer, "model") is not None:
                self._texts = first.outputs, first.cost, first.response_model
        return copy


class DecodedEntries:
    """Entries that were decoded once, by key, within a budget of bytes. Thread-safe.

    What makes room is chosen by chance: where more prompts go round than there is room for, the last used of them would
    never be found again.

    Args:
        most: The budget, in bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = free_after_fork(threading.Lock())
        self._kept: dict[str, Decoded] = {}
        self._keys: list[str] = []
        self._bytes = 0

    def decode(self, key: str, data: bytes) -> Decoded:
        """Return the entry of a key, decoded now or before.

        Args:
            key: The key.
            data: The bytes that are kept under it, in memory: other ones than before are another entry.

        Raises:
            CorruptEntryError: If they are damaged or are not an entry.
            FormatVersionError: If a newer version of this package wrote them.
        """
        kept = self._kept.get(key)
        if kept is not None and kept.data is data:
            return kept
        decoded = Decoded(data, key)
        with self._lock:
            self._put(key, decoded)
        return decoded

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._kept, self._keys, self._bytes = {}, [], 0

    def _put(self, key: str, decoded: Decoded) -> None:
        size = _size(decoded)
        if size > self._most:
            return
        before = self._kept.get(key)
        if before is None:
            self._keys.append(key)
        self._kept[key] = decoded
        self._bytes += size - (0 if before is None else _size(before))
        while self._bytes > self._most:
            place = random.randrange(len(self._keys))  # noqa: S311 - nothing rests on which one it is
            self._keys[place], self._keys[-1] = self._keys[-1], self._keys[place]
            self._bytes -= _size(self._kept.pop(self._keys.pop()))


def _size(decoded: Decoded) -> int:
    return 2 * len(decoded.data) + _OVERHEAD


def _is_native(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("_dspy_format") == CACHE_FORMAT


def _checked(record: dict[str, Any]) -> CallResult:
    """Return what DSPy makes of its record of an answer. Raises CorruptEntryError where it makes nothing of it."""
    try:
        made = _loaded_native(record)
        if isinstance(made.outputs, list):
            return made
        why = "its outputs are no list"
    except Exception as error:  # noqa: BLE001 - whatever DSPy does with what is not as it wrote it
        why = str(error)
    raise CorruptEntryError(f"DSPy makes no answer of what the entry holds: {why}")


def _loaded(answer: Any, lm: BaseLM, options: dict[str, Any]) -> CallResult:
    """Return what DSPy itself makes of what it finds in its cache."""
    if _is_native(answer):
        return _loaded_native(answer)
    result = CallResult.legacy(lm, answer, kwargs=options)
    result.cache_hit, result.usage = True, {}
    return result


def _loaded_native(record: dict[str, Any]) -> CallResult:
    result = CallResult.load({**record, "responses": ()})
    result.responses = tuple([_MOULDS.poured("native", one, response_from_dict) for one in record["responses"]])
    if len(result.responses) == 1:
        result.raw = result.responses[0]
    return result


def _hit_of(opened: records.Opened) -> Any:
    """Return what DSPy finds in its cache: a response of LiteLLM's says what it used now, which is nothing."""
    fields = opened.value.get("v") if opened.is_root_only and opened.most <= values.MOST_OBJECTS else None
    if not (isinstance(fields, dict) and isinstance(opened.value.get("of"), str)):
        return _as_hit(opened.answer())
    used = fields.get("usage")

    def make(plain: dict[str, Any]) -> Any:
        answer = opened._replace(value={**opened.value, "v": {**plain, "usage": used} if used else plain}).answer()
        answer._hidden_params = {}  # noqa: SLF001 - as below
        return _as_hit(answer)

    if used:
        fields["usage"] = {}
    response = _MOULDS.poured(opened.value.get("of"), fields, make)
    response._hidden_params["response_cost"] = opened.value.get("cost")  # noqa: SLF001 - where LiteLLM keeps the cost
    return response


def _as_hit(answer: Any) -> Any:
    if hasattr(answer, "usage"):
        answer.usage = {}  # nothing was used now; DSPy counts usage from here
        # Strict response models refuse undeclared attributes, so it is set past them, as DSPy does.
        object.__setattr__(answer, "cache_hit", True)
    return answer


def _makes_texts(lm: BaseLM) -> bool:
    """Tell whether an LM's outputs rest on the answer alone, as far as the LM decides it."""
    # DSPy's own way, or somebody else's.
    return type(lm)._process_completion is BaseLM._process_completion and lm.model_type != "responses"  # noqa: SLF001


def _of_native(result: CallResult, record: dict[str, Any]) -> Copy | None:
    """Return what makes a result of DSPy's native engine anew; None where some of it is not known to be shareable."""
    responses = [copy for one in result.responses if (copy := _response_of(one)) is not None]
    outputs, details = result.outputs, orjson.dumps(record.get("cost_details", {}))
    texts = all(type(one) in _SHARED for one in outputs)
    if not texts or not responses or len(responses) < len(result.responses) or record.get("raw") is not None:
        return None
    cost, model, has_details = result.cost, result.response_model, details != b"{}"

    def make() -> CallResult:
        made = tuple([response() for response in responses])
        raw = made[0] if len(made) == 1 else None
        return CallResult(made, outputs[:], {}, cost, raw, model, True, orjson.loads(details) if has_details else {})

    return make


def _response_of(response: Response) -> Copy | None:
    data = response.provider_data
    bare = response if data is None else replace(response, provider_data=None)
    try:
        hash(bare)  # what has a hash is frozen, all through
    except TypeError:
        return None
    if data is None:
        return lambda: response
    # Texts are shared: what the provider said holds the answer once more.
    copied = _copy_of(data)
    if copied is None:
        return None
    fields = [(name, getattr(bare, name)) for name in Response.__slots__ if name != "provider_data"]
    put, new = object.__setattr__, object.__new__

    def make() -> Response:
        made = new(Response)
        for name, value in fields:
            put(made, name, value)
        put(made, "provider_data", copied())
        return made

    return make


def _copy_of(value: Any) -> Copy | None:
    """Return what copies a response of LiteLLM: its models, lists and mappings are made anew, and nothing is validated.

    None where there is something in it of which this does not know how.
    """
    try:
        return _copying(value) or (lambda: value)
    except TypeError:
        return None


def _copying(value: Any) -> Copy | None:
    """Return what makes a copy of a value; None where it needs none. Raises TypeError where it is not known how."""
    kind = type(value)
    if kind in _SHARED:
        return None
    if kind is list:
        return _copying_items(value, enumerate(value))
    if kind is dict:
        return _copying_items(value, value.items())
    if isinstance(value, pydantic.BaseModel):
        return _copying_model(value)
    raise TypeError(kind)


def _copying_items(value: Any, items: Iterable[tuple[Any, Any]]) -> Copy:
    """Return what makes a copy of a list, or of a mapping, and of what is in it under these places or names."""
    inner = [(name, copy) for name, item in items if (copy := _copying(item)) is not None]
    if not inner:
        return value.copy  # type: ignore[no-any-return]
    if any(type(name) not in _SHARED for name, _ in inner):
        raise TypeError

    def make() -> Any:
        made = value.copy()
        for name, copy in inner:
            made[name] = copy()
        return made

    return make


def _copying_model(value: pydantic.BaseModel) -> Copy:
    kind, put, new = type(value), object.__setattr__, object.__new__
    fields, names = _copying_items(value.__dict__, value.__dict__.items()), value.__pydantic_fields_set__
    extra, private = (_copying(part) for part in (value.__pydantic_extra__, value.__pydantic_private__))

    def make() -> Any:
        made = new(kind)
        put(made, "__dict__", fields())
        put(made, "__pydantic_fields_set__", names.copy())
        put(made, "__pydantic_extra__", None if extra is None else extra())
        put(made, "__pydantic_private__", None if private is None else private())
        return made

    return make
