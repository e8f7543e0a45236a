"""The secrets that this process holds, by their values: of its environment, and of the LMs that were asked."""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.boundary.secret_names import (
    HEADER_OPTIONS,
    QUERY_OPTIONS,
    is_secret_header,
    is_secret_name,
    is_secret_parameter,
    is_secret_variable,
)

SHORTEST = 8
"""Shorter values of secret options ("none", "EMPTY") are no secrets, and occur in texts."""

_LONGEST_WORD, _MOST = 15, 1_000
_SCHEME = re.compile(r"(?i)(?:bearer|basic|token|apikey|digest|negotiate|aws4-hmac-sha256)\s+\S")
_PLACEHOLDERS = frozenset(
    """
    not-needed not_needed key-not-needed not-used no-key-needed no-key-required sk-no-key-required no_key no-api-key
    your-api-key your_api_key api-key api_key dummy-key dummy_key fake-key fake_key test-key placeholder undefined
    lm-studio llama.cpp localhost 127.0.0.1
    """.split()  # noqa: SIM905 - words, not a page of quotation marks
)
"""What people write where a local server wants a key and looks at none."""


class Held:
    """The values of secrets. Thread-safe; they are in memory only."""

    def __init__(self) -> None:
        self._lock = free_after_fork(threading.Lock())
        self._learned: dict[str, None] = {}

    def learn(self, options: Mapping[str, Any]) -> None:
        """Learn the secrets among the options of a call: they are kept nowhere. The newest stay known."""
        found = [value for value in _secrets_of(options, is_secret_name) if value not in self._learned]
        if found:
            with self._lock:
                self._learned = dict.fromkeys([*found, *self._learned][:_MOST])

    def forget(self) -> None:
        """Forget what was learned."""
        with self._lock:
            self._learned = {}

    def hide(self, text: str, hidden: str) -> str:
        """Return a text without the values that are held, however they are escaped in it."""
        for secret in (*_of_environment(), *self._learned):
            for form in _forms(secret):
                if form in text:
                    text = text.replace(form, hidden)
        return text

    def is_in(self, text: str, *, besides: Container[str] = ()) -> bool:
        """Tell whether a value that is held is in a text, however it is escaped, besides some."""
        held = (secret for secret in (*_of_environment(), *self._learned) if secret not in besides)
        return any(form in text for secret in held for form in _forms(secret))


HELD = Held()
"""Those of this process."""


_looked_at: tuple[Mapping[Any, Any], tuple[str, ...]] = {}, ()
"""The variables of the environment when it was last looked at, and the secrets among them."""


def _of_environment() -> tuple[str, ...]:
    global _looked_at  # noqa: PLW0603 - both at once, for other threads
    # As they are held: to read all of them, each is decoded, which takes longer than to look through a text.
    held = getattr(os.environ, "_data", os.environ)
    known, secrets = _looked_at
    if known != held:
        known = dict(held)
        values = [value for name, value in os.environ.items() if is_secret_variable(name)]
        secrets = tuple({value for value in values if _is_long_enough(value) and not os.path.exists(value)})  # noqa: PTH110
        _looked_at = known, secrets
    return secrets


def secrets_in(options: Mapping[str, Any]) -> list[str]:
    """Return the secrets among the options of a call; a word that stands where a key is wanted is none."""
    return list(_secrets_of(options, is_secret_name))


def has_scheme(value: Any) -> bool:
    """Tell whether a value is a credential as headers have it (`Bearer ...`)."""
    return isinstance(value, str) and _SCHEME.match(value) is not None


def _secrets_of(value: Any, is_secret: Any) -> Iterator[str]:
    for name, item in _fields(value).items():
        text = item.decode("utf-8", "replace") if isinstance(item, bytes) else item
        if isinstance(text, str) and (is_secret(str(name)) or (is_secret is is_secret_header and has_scheme(text))):
            yield from _with_its_parts(text)
        elif _fields(item):
            inner = is_secret_header if name in HEADER_OPTIONS else is_secret
            yield from _secrets_of(item, is_secret_parameter if name in QUERY_OPTIONS else inner)
        elif isinstance(item, (list, tuple)) and name != "messages":
            named = ({name: one} if isinstance(one, (str, bytes)) else one for one in item)
            yield from (found for one in named for found in _secrets_of(one, is_secret))


def _fields(value: Any) -> Mapping[Any, Any]:
    """Return what a value has under names: a mapping, or an object of pydantic's."""
    if isinstance(value, Mapping):
        return value
    return vars(value) if hasattr(type(value), "model_fields") and not isinstance(value, type) else {}


def _with_its_parts(value: str) -> Iterable[str]:
    _, _, credential = value.partition(" ")
    if has_scheme(value):
        return [value, credential] if _is_long_enough(credential) else []
    return [value] if _is_long_enough(value) else []


def _is_long_enough(value: str) -> bool:
    """Tell whether a value is no word that a text may hold for another reason."""
    if (
        len(value) < SHORTEST
        or value.lower() in _PLACEHOLDERS
        or value.startswith(("/", "./", "~/", "http://", "https://"))
    ):
        return False
    return not value.isalpha() or len(value) > _LONGEST_WORD


@lru_cache(maxsize=1024)
def _forms(secret: str) -> tuple[str, ...]:
    encoded = base64.b64encode(secret.encode("utf-8", "surrogatepass")).decode().rstrip("=")
    escaped = (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1])
    addressed = (quote(secret, safe="", errors="replace"), quote_plus(secret, errors="replace"))
    return tuple(dict.fromkeys((secret, *escaped, *addressed, encoded)))
