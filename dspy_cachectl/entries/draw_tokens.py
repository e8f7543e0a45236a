"""What tells one answer of a provider from another, wherever it is met again.

An answer is told by the provider's ids of it and by its content together: an id of a small range comes twice by chance,
and a proxy repeats both. Three ids tell nothing, and what says the same under one of them may be one answer or two: one
that came with two contents, one that is not there, and one of a small range where chance would do, too.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

_LENGTH = 16
_WEAK = "~"
"""Begins the hash of an id that is of a small range: its like would come twice in some thousand answers."""
_SMALL_RANGE = 10**6
_UNLIKELY = 1e-3
"""How likely chance may be where ids of a small range are taken for the provider's word."""

_WORDS = re.compile(r"(?:[A-Za-z]+[-_])*")

KNOWN, PERHAPS = "known", "perhaps"
"""Ends the token of an answer that was another draw's when it was bought, or of which that cannot be known."""


def token_of(response_ids: Sequence[str], content: str, key: str, known: bool | None = False) -> str:
    """Return the token of an answer: `ids.content.key`, each a short hash; the first two empty where unknown.

    Args:
        response_ids: The provider's ids, or none.
        content: The hash of what was answered (see `AnswerFacts`).
        key: The key of the entry, or what else is the answer's own.
        known: Whether it was another draw's already when it was bought; None where that cannot be known.
    """
    ending = {True: f".{KNOWN}", None: f".{PERHAPS}"}.get(known, "")
    return f"{_name(response_ids)}.{content}.{_hash(key)}{ending}"


def key_in(token: str) -> str:
    """Return the short hash of the key that a token has (see `hash_of_key`)."""
    return _Parts.of(token).key


def content_in(token: str) -> str:
    """Return the hash of what was answered that a token has; "" where nothing is known of it."""
    return _Parts.of(token).content


def hash_of_key(key: str) -> str:
    """Return the short hash of an entry's key, as it stands in the tokens of its answer."""
    return _hash(key)


def mark_of(response_ids: Sequence[str], content: str) -> str:
    """Return by what a store knows an answer again: its ids and its content; "" where neither tells it."""
    if response_ids:
        return f"{_name(response_ids)}.{content}"
    return f"={content}." if content else ""


def known_as(mark: str, marks: Mapping[str, str]) -> tuple[str | None, bool]:
    """Return the key under which an answer was known before, or None; and whether that is sure.

    Args:
        mark: The answer's mark.
        marks: The marks of its name, each with the key that it was first kept under.
    """
    if not mark or set(marks) != {mark}:  # a name that comes with two contents tells nothing
        return None, True
    return marks[mark], mark[0] not in {_WEAK, "="}


class _Parts(NamedTuple):
    """What a token consists of; what is none is its own key."""

    ids: str
    content: str
    key: str
    known: str

    @classmethod
    def of(cls, token: str) -> _Parts:
        parts = [*token.split("."), ""]
        return cls(*parts[:4]) if len(parts) in {4, 5} else cls("", "", token, "")

    @property
    def said(self) -> tuple[str, str]:
        return self.ids, self.content


class Draws:
    """The answers behind a report, or two: which are one draw, and of which that cannot be known.

    Args:
        tokens: The tokens of all of them: an id's contents are looked for among them.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self._parts = {token: _Parts.of(token) for token in tokens}
        told = self._parts.values()
        self._contents: defaultdict[str, set[str]] = defaultdict(set)
        self._keys: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for parts in told:
            self._contents[parts.ids].add(parts.content)
            self._keys[parts.said].add(parts.key)
        self._trusts_weak = self._is_no_chance([parts for parts in told if parts.ids.startswith(_WEAK)])
        self._fresh = {parts.said for parts in told if not parts.known}

    def told(self, token: str) -> str:
        """Return what an answer is told by: two tokens of one answer have the same."""
        parts = self._parts[token]
        return ".".join(parts.said) if self._tells(parts.ids) else parts.key

    def is_doubtful(self, token: str) -> bool:
        """Whether it cannot be known if another answer that says the same is the same."""
        parts = self._parts[token]
        return bool(parts.content) and not self._tells(parts.ids) and len(self._keys[parts.said]) > 1

    def known(self, token: str) -> str:
        """Return whether an answer was known before any of these was asked for: `KNOWN`, `PERHAPS`, or ""."""
        parts = self._parts[token]
        return "" if parts.said in self._fresh else parts.known

    def content(self, token: str) -> str:
        """Return the hash of what was answered; "" where nothing is known of it."""
        return self._parts[token].content

    def _tells(self, ids: str) -> bool:
        return bool(ids) and len(self._contents[ids]) == 1 and (self._trusts_weak or not ids.startswith(_WEAK))

    def _is_no_chance(self, weak: list[_Parts]) -> bool:
        """Whether ids of a small range come with one content each, which chance would hardly do as often."""
        if any(len(self._contents[parts.ids]) > 1 for parts in weak):
            return False
        again = sum(len(keys) - 1 for (ids, _), keys in self._keys.items() if ids.startswith(_WEAK))
        alike = sum(count * (count - 1) for count in Counter(parts.content for parts in weak).values())
        pairs = len(weak) * (len(weak) - 1)
        return not again or (pairs > 0 and (alike / pairs) ** again < _UNLIKELY)


def _name(response_ids: Sequence[str]) -> str:
    if not response_ids:
        return ""
    return ("" if any(map(_is_of_large_range, response_ids)) else _WEAK) + _hash("\0".join(response_ids))


def _is_of_large_range(response_id: str) -> bool:
    rest = re.sub(r"[^0-9A-Za-z]", "", _WORDS.sub("", response_id, count=1))
    return bool((10 if rest.isdigit() else 36) ** len(rest) >= _SMALL_RANGE)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_LENGTH]
