"""Which answer a call stands for: request material, fingerprint, ordinals, rollout ids and the cache key.

Pure functions over plain data. The material is what the program asked of which model at which endpoint,
without anything secret and without anything that only says how to store it.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit
from weakref import WeakKeyDictionary

import orjson
import pydantic

from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.boundary.secrets import readable_address
from dspy_cachectl.entries.asked import asked_of
from dspy_cachectl.errors import CachectlError

KEY_VERSION = 5
"""Part of every key. Raised when the meaning of a key changes, so that old entries are not misread."""

ROLLOUT_BITS = 53
"""Rollout ids are integers that survive a trip through JSON numbers: at most 53 bits."""


class UncacheableError(CachectlError):
    """A request or an answer holds something that has no canonical form. It is counted, never shown."""


def clean_request(request: Mapping[str, Any], *, by_litellm: bool = False) -> dict[str, Any]:
    """Return the part of a request that says what is asked (see `asked`): no credentials, no transport, nothing unset.

    What may be a credential, and may decide the answer, stands there as its hash.

    Args:
        request: DSPy's request fields: model, messages, generation options.
        by_litellm: Whether LiteLLM sends it, and keeps to itself what it does not send.

    Returns:
        A new dictionary. Values are shared with the request and must not be changed.

    Raises:
        UncacheableError: If a value holds itself, or is a number that JSON has not.
    """
    try:
        return asked_of(request, by_litellm=by_litellm)
    except RecursionError as error:
        raise UncacheableError("an option of the request has no canonical form: it holds itself") from error
    except (ValueError, TypeError) as error:
        raise UncacheableError(f"an option of the request has no canonical form: {error}") from error


@lru_cache(maxsize=1024)
def clean_endpoint(url: str | None) -> str | None:
    """Return the identity of an endpoint: its address without credentials and trailing slash."""
    if not url:
        return None
    bare = readable_address(url)
    try:
        parts = urlsplit(bare)
    except ValueError:
        return bare  # it is no address, and LiteLLM will say so
    if not parts.scheme or not parts.netloc:
        return bare
    return urlunsplit((parts.scheme.lower(), parts.netloc.lower(), parts.path.rstrip("/"), parts.query, parts.fragment))


def fingerprint(request: Mapping[str, Any], *, endpoint: str | None, version: str | None = None) -> str:
    """Hash what is asked of whom: the SHA-256 of canonical JSON, mappings sorted, lists in their order.

    Args:
        request: The cleaned request (see `clean_request`).
        endpoint: The identity of the endpoint, or None for the provider's own.
        version: The user's name for a version of the model, or None.

    Returns:
        64 hexadecimal digits.

    Raises:
        UncacheableError: If the request has no canonical form.
    """
    return hashlib.sha256(_text(request, endpoint, version)).hexdigest()


def _text(request: Mapping[str, Any], endpoint: str | None, version: str | None) -> bytes:
    material: dict[str, Any] = {"v": KEY_VERSION, "request": request}
    if endpoint is not None:
        material["endpoint"] = endpoint
    if version is not None:
        material["version"] = version
    return canonical(material)


class Around(NamedTuple):
    """The text that is hashed for a fingerprint, around one option: the same for all requests that differ in that.

    Attributes:
        before: What stands before the option's value.
        after: What stands behind it.
    """

    before: bytes
    after: bytes

    @classmethod
    def option(cls, name: str, request: Mapping[str, Any], *, endpoint: str | None, version: str | None) -> Around:
        """Return what is around an option of a cleaned request. See `fingerprint` for the rest."""
        mark = uuid.uuid4().hex.encode()
        text = _text({**request, name: orjson.Fragment(mark)}, endpoint, version)
        return cls(*text.split(mark))

    def fingerprint(self, value: Any) -> str:
        """Return the fingerprint of the request that has this value there.

        Raises:
            UncacheableError: If the value has no canonical form.
        """
        return hashlib.sha256(b"".join((self.before, canonical(value), self.after))).hexdigest()


def cache_key(request_fingerprint: str, *, rollout_id: object = None, scope: tuple[tuple[str, str], ...] = ()) -> str:
    """Return the key of an entry: the fingerprint, the rollout and the policy's scope.

    Args:
        request_fingerprint: The fingerprint of the request.
        rollout_id: The rollout of this draw; None for the program's plain call.
        scope: Extra key material of the policy.

    Returns:
        64 hexadecimal digits.

    Raises:
        UncacheableError: If the rollout id has no canonical form.
    """
    if rollout_id is None and not scope:
        return request_fingerprint
    return hashlib.sha256(canonical([KEY_VERSION, request_fingerprint, rollout_id, scope])).hexdigest()


class Key(NamedTuple):
    """Which answer a call stands for; all of it None where what is asked has no canonical form.

    Attributes:
        fingerprint: The hash of what is asked of whom.
        request: The key of what is asked, whichever draw of it this is.
        entry: The key of its entry.
        rollout_id: The rollout id in that, or None.
        ordinal: Which asking of this request it is within its run, where that is counted.
    """

    fingerprint: str | None = None
    request: str | None = None
    entry: str | None = None
    rollout_id: Any = None
    ordinal: int | None = None


def key_of(
    request: Mapping[str, Any],
    *,
    endpoint: str | None,
    version: str | None = None,
    scope: tuple[tuple[str, str], ...] = (),
    program_rollout_id: object = None,
    run_id: str | None = None,
    unit: str | None = None,
    ordinal: Callable[[str], int] | None = None,
) -> Key:
    """Return which answer a call stands for.

    Args:
        request: The cleaned request (see `clean_request`).
        endpoint: See `fingerprint`; likewise the next.
        version: See `fingerprint`.
        scope: Extra key material of the policy.
        program_rollout_id: The rollout id that the program chose, or None.
        run_id: The run that it is a draw of, or None.
        unit: What draws are numbered within.
        ordinal: Numbers the request of this fingerprint. None: all of them are one draw.

    Raises:
        UncacheableError: If the request, or the program's rollout id, has no canonical form.
    """
    asked = fingerprint(request, endpoint=endpoint, version=version)
    return key_within(
        asked, scope=scope, program_rollout_id=program_rollout_id, run_id=run_id, unit=unit, ordinal=ordinal
    )


def key_within(
    asked: str,
    *,
    scope: tuple[tuple[str, str], ...] = (),
    program_rollout_id: object = None,
    run_id: str | None = None,
    unit: str | None = None,
    ordinal: Callable[[str], int] | None = None,
) -> Key:
    """Return likewise which answer a call stands for whose request has this fingerprint."""
    key = cache_key(asked, rollout_id=program_rollout_id, scope=scope)
    if run_id is None:
        return Key(asked, key, key, program_rollout_id)
    number = None if ordinal is None else ordinal(asked)
    drawn = rollout_id(run_id, program_rollout_id=program_rollout_id, unit=unit, request=asked, ordinal=number or 0)
    return Key(asked, key, cache_key(asked, rollout_id=drawn, scope=scope), drawn, number)


def described_key(description: Mapping[str, Any], *, rollout_id: object = None) -> str | None:
    """Return the key of what is described beside an entry; None where it has none.

    Args:
        description: What was asked: `request`, `endpoint`, `version` and `scope`.
        rollout_id: The rollout of the draw.
    """
    request, scope = description.get("request"), description.get("scope")
    if not isinstance(request, Mapping):
        return None
    try:
        asked = fingerprint(request, endpoint=description.get("endpoint"), version=description.get("version"))
        pairs = tuple(sorted(scope.items())) if isinstance(scope, Mapping) else ()
        return cache_key(asked, rollout_id=rollout_id, scope=pairs)
    except (UncacheableError, TypeError):
        return None


def rollout_id(
    run_id: str, *, program_rollout_id: object = None, unit: str | None = None, request: str = "", ordinal: int = 0
) -> int:
    """Derive the rollout id of a fresh draw.

    The same arguments give the same id on any machine and under any thread schedule.

    Args:
        run_id: The run that the draw belongs to.
        program_rollout_id: The rollout id that the program chose, if it did. It is enclosed, never replaced.
        unit: What is being evaluated (example and repeat), if known.
        request: The fingerprint of the request.
        ordinal: How many times this request was asked before within the run, unit and program's rollout.

    Returns:
        An integer of at most 53 bits, never 0.

    Raises:
        UncacheableError: If the program's rollout id has no canonical form.
    """
    digest = hashlib.sha256(canonical([KEY_VERSION, run_id, program_rollout_id, unit, request, ordinal])).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - ROLLOUT_BITS)) or 1


class Ordinals:
    """Counts how often each request was asked within a run. Thread-safe.

    Attributes:
        shared: Counts in the place of this, for several processes (see `SharedPassage.next`); None where only one asks.
        forget_shared: Forgets there what begins so (see `SharedPassage.forget`); likewise.
    """

    def __init__(self) -> None:
        self._lock = free_after_fork(threading.Lock())
        self._counts: Counter[tuple[str | None, str, str]] = Counter()
        self.shared: Callable[[str, int], int] | None = None
        self.forget_shared: Callable[[str], None] | None = None

    def next(self, request: str, *, unit: str | None = None, program_rollout_id: object = None) -> int:
        """Return 0 for the first such request, 1 for the second, and so on.

        Raises:
            UncacheableError: If the program's rollout id has no canonical form.
        """
        chosen = "" if program_rollout_id is None else canonical(program_rollout_id).decode()
        key = (unit, chosen, request)
        with self._lock:
            ordinal = self._counts[key]
            if self.shared is not None:
                ordinal = self.shared(canonical(key).decode(), ordinal)
            self._counts[key] = ordinal + 1
        return ordinal

    def forget(self, unit: str) -> None:
        """Count from 0 again within a unit, and the units in it: what is asked again there is the same draws."""
        with self._lock:
            for key in [key for key in self._counts if f"{key[0]}/".startswith(f"{unit}/")]:
                del self._counts[key]
            if self.forget_shared is not None:
                for end in '"/':
                    self.forget_shared(canonical([unit]).decode().removesuffix('"]') + end)


def canonical(value: Any) -> bytes:
    """Return canonical JSON: what is hashed for a key, and kept of a request beside an entry.

    Raises:
        UncacheableError: If the value has no canonical form.
    """
    try:
        return orjson.dumps(value, default=_transform, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError) as error:
        # orjson wraps what `_transform` raises; its own message names the type.
        raise UncacheableError(f"a request has no canonical form: {error}") from error


def _transform(value: Any) -> Any:
    if isinstance(value, type) and issubclass(value, pydantic.BaseModel):
        return {"$schema-of": value.__name__, "schema": _schema(value)}
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__} cannot be part of a cache key")


def _schema(model: type[pydantic.BaseModel]) -> orjson.Fragment:
    # Building a JSON schema takes longer than all the rest of a hit, and adapters pass the same class each time. A
    # class that is rebuilt has another schema, and another core schema.
    core = model.__dict__.get("__pydantic_core_schema__")
    known = _SCHEMAS.get(model)
    if known is None or known[0] is not core:
        schema = asked_of({"schema": model.model_json_schema()})["schema"]
        known = core, orjson.Fragment(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS))
        _SCHEMAS[model] = known
    return known[1]


_SCHEMAS: WeakKeyDictionary[type[pydantic.BaseModel], tuple[Any, orjson.Fragment]] = WeakKeyDictionary()
