"""What is a secret, by its name, by its shape and by its value; and texts and plain data without any.

What is served again, or was written by somebody for a reason, goes through `scrub_surely`, which takes only what cannot
be anything else. Messages, tags and the like go through `scrub`, which takes what stands under the name of a secret
too. Both take a time in proportion to the text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from dspy_cachectl.boundary import secret_names
from dspy_cachectl.boundary.addresses import scrub_addresses, without_credentials, without_login, without_parameters
from dspy_cachectl.boundary.held import HELD, SHORTEST, has_scheme, secrets_in
from dspy_cachectl.boundary.key_shapes import keys_in, looks_drawn
from dspy_cachectl.boundary.secret_names import (
    HEADER_OPTIONS,
    QUERY_OPTIONS,
    is_known_credential,
    is_secret_header,
    is_secret_name,
    is_secret_parameter,
    is_secret_variable,
)

__all__ = [
    "HIDDEN",
    "SCHEMAS",
    "has_scheme",
    "hashed",
    "hold_secret",
    "is_known_credential",
    "is_of_schemas",
    "is_secret_header",
    "is_secret_name",
    "readable_address",
    "readable_name",
    "readable_text",
    "readable_values",
    "scrub",
    "scrub_head",
    "scrub_surely",
    "shows_secret",
    "told_apart",
    "without",
    "without_credentials",
    "without_known",
]

HIDDEN = "[removed]"
"""What stands where a secret was."""

SCHEMAS = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
"""Where a JSON schema has names that are the user's: a property called `password` is no secret."""
_WORD_FOR_WORD = frozenset({"messages", "prompt", "input", "batch_inputs", "parameters", "input_schema", "inputSchema"})
"""What is asked, word for word, and what a tool takes."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://\S+\Z")
_LONGEST_REMEMBERED = 16_384
_BEHIND = 8_192

_NAMED = re.compile(
    r"(?i)(?:key|authorization|passw(?:or)?d|passphrase|pwd|secret|token|bearer|cookies?|credentials?|jwt|apikey|key[_\-]id)"
    r"(?P<is>\\{0,3}[\"'\]]?\s{0,2}(?::=|=>|[=:])\s{0,2})(?P<quote>[bruf]{0,2}\\{0,3}[\"']|)(?P<scheme>(?:bearer|basic)\s{1,3}|)"
)
_UNQUOTED = re.compile(r"[^\s\"',;&}\])>]+")
_QUOTED = {
    '"': re.compile(r"(?:[^\"\\\r\n]|\\.)+"),
    "'": re.compile(r"(?:[^'\\\r\n]|\\.)+"),
    '\\"': re.compile(r"[^\"\\\r\n]+"),
    "\\'": re.compile(r"[^'\\\r\n]+"),
}
_A_WORD = re.compile(
    r"(?:[A-Za-z_]+(?:\.[A-Za-z_]*)*[(\[]?|[0-9.]{1,12}|[\W_]+|\[removed\]?|[^${<*]*[${<*].*)\Z", re.DOTALL
)
_MARKS = "bBrRuUfF"  # before the quotes of a text in Python
_NAME_LENGTH = 48
_NOT_OF_NAMES = re.compile(r"[^\w\-.]")


def without(value: Any, *, text: Callable[[str], str] | None = None) -> Any:
    """Return plain data without what stands under the names of secrets.

    Args:
        value: Mappings, lists, tuples, and anything else, which stays as it is.
        text: What is done to each text, if anything.
    """
    return _Walk(text).walk(value, is_secret_name)


def hold_secret(options: Mapping[str, Any]) -> bool:
    """Tell whether a secret is among the options of a call: under its name, by its shape, or in an address."""
    return bool(secrets_in(options)) or without(options) != without(options, text=readable_text)


def without_known(value: Any) -> Any:
    """Return plain data without known credentials, for a hash: what only sounds like one may decide, and stays."""
    if isinstance(value, Mapping):
        kept = {name: item for name, item in value.items() if not (isinstance(name, str) and is_known_credential(name))}
        return {name: without_known(item) for name, item in kept.items()}
    if type(value) in {list, tuple}:
        return type(value)([without_known(item) for item in value])
    return value


def scrub(text: str) -> str:
    """Return a message without secrets: those held, addresses' logins, keys, and what stands under a secret's name."""
    if len(text) < SHORTEST and text.isidentifier():
        return text
    text = scrub_addresses(HELD.hide(text, HIDDEN), HIDDEN, bare=True)
    return _cut(_cut(text, _named(text)), None)


def scrub_head(text: str, longest: int) -> str:
    """Return the beginning of a message without secrets, however long the message is; about `longest` is enough.

    Scrubbing a text takes a time in proportion to it, in which no other thread runs.
    """
    if len(text) <= longest + _BEHIND:
        return scrub(text)
    # Half a secret has no shape: where the text was cut there may be one.
    return scrub(text[: longest + _BEHIND])[: -_BEHIND // 2]


def told_apart(name: str) -> str:
    """Return a name that tells things apart: as it is, or a hash of it where a secret is in it."""
    return name if scrub(name) == name else hashed(name)


def scrub_surely(text: str) -> str:
    """Return a text without what cannot be anything but a secret: those held, and keys that are told by their shape."""
    return _without_shapes(HELD.hide(text, HIDDEN))


def shows_secret(text: str) -> bool:
    """Tell whether there is in a text what is told to be a secret by its shape alone, and so goes in `scrub_surely`."""
    return _without_shapes(text) != text


def _without_shapes(text: str) -> str:
    text = _cut(text, None)
    return _LOGIN.sub(_without_sure_login, text) if "@" in text else text


def _cut(text: str, spans: Iterable[tuple[int, int]] | None) -> str:
    """Return a text with something else in place of spans; None: of the keys in it."""
    kept, end = [], 0
    for start, stop in sorted(keys_in(text) if spans is None else spans):
        if stop > end:
            kept += [text[end : max(start, end)], *([HIDDEN] if start >= end else [])]
            end = stop
    return "".join([*kept, text[end:]]) if kept else text


_LOGIN = re.compile(
    r"(?P<slashes>(?:\\?/){2})(?P<user>[^\s\"'<>`/@:]{0,128}):(?P<password>[^\s\"'<>`/@]{1,256})@(?=[\w\[])"
)


def _without_sure_login(found: re.Match[str]) -> str:
    password = found["password"]
    return found[0] if password.isalpha() or set("${<*") & set(password) else found["slashes"]


def _named(text: str) -> Iterable[tuple[int, int]]:
    if ":" not in text and "=" not in text:
        return
    for found in _NAMED.finditer(text):
        quote = found["quote"]
        value = (_QUOTED[quote[-2:].lstrip(_MARKS)] if quote else _UNQUOTED).match(text, found.end())
        if value is None or not (found["scheme"] or _says_something(value[0], quoted=bool(quote))):
            continue
        name = _NOT_OF_NAMES.split(text[max(0, found.start() - _NAME_LENGTH) : found.start("is")])[-1]
        if is_secret_variable(name.replace("-", "_")) or is_secret_name(name):
            yield value.span()


def _says_something(value: str, *, quoted: bool) -> bool:
    """Tell whether a value may be a secret: what is one word, a number or a placeholder is none."""
    if quoted and len(value) >= 6 and value.lower() not in _TYPES:
        return " " not in value and not value.startswith((HIDDEN, "$", "<", "{", "*"))
    return len(value) >= 6 and _A_WORD.match(value) is None


_TYPES = frozenset({"string", "required", "missing", "invalid", "expired", "number", "integer", "boolean", "object"})
_LEFT_OUT = object()


class _Walk:
    """One walk over plain data that leaves out what stands under the names of secrets. Strictly private.

    Args:
        text: What is done to each text, if anything.
    """

    def __init__(self, text: Callable[[str], Any] | None) -> None:
        self._text = text

    def walk(self, value: Any, sounds: Callable[[str], bool]) -> Any:
        if isinstance(value, str):
            return value if self._text is None else self._text(value)
        if isinstance(value, Mapping):
            walked = {name: self._item(name, item, sounds) for name, item in value.items()}
            return {name: item for name, item in walked.items() if item is not _LEFT_OUT}
        if isinstance(value, (list, tuple)):
            items = [self.walk(item, sounds) for item in value]
            return tuple(items) if isinstance(value, tuple) else items
        return value

    def _item(self, name: Any, item: Any, sounds: Callable[[str], bool]) -> Any:
        if not isinstance(name, str):
            return self.walk(item, sounds)
        if name in _WORD_FOR_WORD or (name in SCHEMAS and is_of_schemas(item)):
            return item
        if name in HEADER_OPTIONS:
            sounds = is_secret_header
        elif name in QUERY_OPTIONS:
            sounds = is_secret_parameter
        elif sounds(name) and item is not None and not isinstance(item, bool):
            return _LEFT_OUT
        return _LEFT_OUT if sounds is is_secret_header and has_scheme(item) else self.walk(item, sounds)


def is_of_schemas(value: Any) -> bool:
    """Tell whether a value holds schemas by names that are the user's."""
    return isinstance(value, Mapping) and all(isinstance(item, (Mapping, bool)) for item in value.values())


def hashed(text: str) -> str:
    """Return what stands where a value may be a secret and may matter: it tells values apart and shows none."""
    return f"[hidden {hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}]"


def readable_text(text: str) -> str:
    """Return a text of an option as it may be read: as it is, or its hash where a secret stands in it.

    The hash is of all of it: whatever is sent tells two calls apart.
    """
    return text if len(text) < 8 else (_seen if len(text) <= _LONGEST_REMEMBERED else _looked_at)(text)


def _looked_at(text: str) -> str:
    if not _holds_secret(text):
        return text
    bare = without_credentials(text) if _ADDRESS.match(text) else ""
    return f"{bare} {hashed(text)}" if bare and not _holds_secret(bare) else hashed(text)


def _holds_secret(text: str) -> bool:
    if ("//" in text or "@" in text) and (
        without_login(text) != text or scrub_addresses(text, HIDDEN, bare=True) != text
    ):
        return True
    return _has_key(text) or any(True for _ in _named(text))


def _has_key(text: str) -> bool:
    return (has_scheme(text) and looks_drawn(text[6:])) or any(keys_in(text))


_seen = lru_cache(maxsize=1024)(_looked_at)


def readable_address(address: str) -> str:
    """Return the address of a server as it may be read: without login and known credentials, which say who asks.

    What else may be a secret in it stands there as its hash, a part of its path that was drawn by lot too.
    """
    bare = without_parameters(without_login(address), _parameter)
    if bare != address and _ADDRESS.match(address) is None:
        return hashed(address)  # a text that only has something of an address
    bare = _PART.sub(lambda found: _hashed_part(found[0]) if looks_drawn(found[0]) else found[0], bare)
    return hashed(bare) if _has_key(bare) else bare


def readable_name(name: str) -> str:
    """Return a name that somebody gave to something, as it may be read: an address without login and credentials."""
    return readable_text(readable_address(name) if _ADDRESS.match(name) else name)


def readable_values(value: Any) -> Any:
    """Return plain data as it may be read: what may be a secret, by its name or in itself, stands there as its hash."""
    if isinstance(value, Mapping):
        return {
            readable_text(name) if isinstance(name, str) else name: hashed(json.dumps(item, sort_keys=True))
            if isinstance(name, str) and is_secret_name(name) and item is not None
            else readable_values(item)
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [readable_values(item) for item in value]
    return readable_text(value) if isinstance(value, str) else value


def _parameter(name: str, value: str) -> str | None:
    if not is_secret_parameter(name):
        return ""
    return None if name.lower() in secret_names.KNOWN_PARAMETERS else _hashed_part(value)


_PART = re.compile(r"(?<=[^/:]/)[^/?#]{16,}")


def _hashed_part(part: str) -> str:
    return hashed(part).replace(" ", "-")
