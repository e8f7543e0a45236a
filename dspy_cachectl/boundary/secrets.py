"""Which names hold secrets. What they hold is in no key, no entry, no record and no message."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

_SECRET_WORD = re.compile(
    r"(?:^|[_\-.])(?:"
    r"api[_\-]?key|apikey|authorization|bearer|password|passwd|secret|credentials?|cookie|private[_\-]?key|"
    r"(?:secret[_\-])?access[_\-]?key(?:[_\-]id)?|"
    r"(?:access|refresh|session|auth|id|ad|security|bearer|api|hf|csrf|xsrf)[_\-]?token"
    r")(?:$|[_\-.])",
    re.IGNORECASE,
)
HEADERS = frozenset({"headers", "extra_headers", "default_headers"})
"""The options of a call that are headers."""
_SECRET_NAMES = frozenset({"token", "auth", "key", "sig", "signature", "code"})
_SECRET_IN_HEADER = ("key", "token", "auth", "secret", "cookie", "session", "credential", "password", "signature")


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Tell whether an option of this name holds a secret (`api_key`, `aws_session_token`, ...).

    `max_tokens`, `prompt_cache_key` and the like are not secrets.
    """
    return name.lower() == "token" or _SECRET_WORD.search(name) is not None


def is_secret_header(name: str) -> bool:
    """Tell whether an HTTP header or a parameter of a URL holds a secret. In doubt it does."""
    lowered = name.lower()
    return lowered in _SECRET_NAMES or any(word in lowered for word in _SECRET_IN_HEADER)


def without(
    value: Any, *, hides: Callable[[str], bool] = is_secret_name, text: Callable[[str], str] | None = None
) -> Any:
    """Return plain data without what stands under the names of secrets.

    Args:
        value: Mappings, lists, tuples, and anything else, which stays as it is.
        hides: Tells whether a name holds a secret. Among headers it is `is_secret_header`.
        text: What is done to each text, if anything.
    """
    if isinstance(value, Mapping):
        return {
            name: without(item, hides=is_secret_header if name in HEADERS else hides, text=text)
            for name, item in value.items()
            if not (isinstance(name, str) and hides(name))
        }
    if isinstance(value, (list, tuple)):
        items = [without(item, hides=hides, text=text) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    return text(value) if text is not None and isinstance(value, str) else value


USERINFO = re.compile(r"(?P<scheme>\b[a-zA-Z][\w+.\-]*://)[^/?#\s]*@")
"""User and password in an address, with what stands before them."""

HIDDEN = "[removed]"
"""What stands where a secret was."""

_KEYS = re.compile(r"\b(?:sk|pk|rk|hf|gh[pousr]|gsk|xai|xox[abp]|nvapi|dapi|AKIA|AIza)[\-_]?[\w\-]{16,}")
_SECRETS_IN_TEXT = (
    re.compile(r"(?i)(?P<keep>\b(?:bearer\s+(?=[\w\-.~+/=]{6})|basic\s+(?=[\w\-.~+/=]{16})))[\w\-.~+/=]+"),
    re.compile(
        r"(?i)(?P<keep>(?:api[_\-]?key|authorization|password|passwd|secret|[_\-]token(?!s)|\btoken(?!s))[\w\-]*"
        r"[\"']?\s*[=:]\s*[\"']?)(?!\s)(?:(?:bearer|basic)\s+)?[^\s\"',;&}]+"
    ),
)


def scrub(text: str) -> str:
    """Return a text without the secrets that can be told by their look: credentials in addresses, keys, tokens."""
    text = USERINFO.sub(r"\g<scheme>", text)
    for pattern in _SECRETS_IN_TEXT:
        text = pattern.sub(lambda found: found["keep"] + HIDDEN, text)
    return scrub_keys(text)


def scrub_keys(text: str) -> str:
    """Return a text without what has the form of a well-known provider's key."""
    return _KEYS.sub(HIDDEN, text)
