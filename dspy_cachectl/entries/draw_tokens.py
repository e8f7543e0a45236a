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
    def said(self) -> str:
        return f"{self.ids}.{self.content}"


class _Values:
    """How many values each of some names has. Nearly all have one, and a set for each would take most of the time."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._others: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, name: str, value: str) -> None:
        """Let a name have a value, which it may have already."""
        if self._first.setdefault(name, value) != value:
            self._others[name].add(value)

    def number(self, name: str) -> int:
        """Return how many values a name has."""
        return (name in self._first) + (len(self._others[name]) if name in self._others else 0)

    @property
    def has_several(self) -> bool:
        """Whether any name has more than one."""
        return bool(self._others)


class Draws:
    """The answers behind a report, or two: which are one draw, and of which that cannot be known.

    What their tokens consist of is told anew where it is needed: to keep it for a hundred thousand takes longer.

    Args:
        tokens: The tokens of all of them: an id's contents are looked for among them.

    Attributes:
        are_all_fresh: Whether none of them was known before, for sure or perhaps.
        may_doubt: Whether any says what another says: otherwise none is doubtful.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        tokens, weak, known = frozenset(tokens), [], set()
        self._contents, self._keys = _Values(), _Values()
        for token in tokens:
            parts = _Parts.of(token)
            self._contents.add(parts.ids, parts.content)
            self._keys.add(parts.said, parts.key)
            if parts.known:
                known.add(parts.said)
            if parts.ids.startswith(_WEAK):
                weak.append(parts)
        self._trusts_weak = self._is_no_chance(weak)
        self.are_all_fresh, self.may_doubt = not known, self._keys.has_several
        again = (parts for parts in map(_Parts.of, tokens) if not parts.known and parts.said in known) if known else ()
        self._fresh = {parts.said for parts in again}

    def told(self, token: str) -> str:
        """Return what an answer is told by: two tokens of one answer have the same."""
        parts = _Parts.of(token)
        return parts.said if self._tells(parts.ids) else parts.key

    def all_told(self, draw: str) -> str:
        """Return what some answers are told by, in whatever order they came: their tokens, between `+`."""
        return "+".join(sorted(map(self.told, draw.split("+")))) if "+" in draw else self.told(draw)

    def is_doubtful(self, token: str) -> bool:
        """Whether it cannot be known if another answer that says the same is the same."""
        parts = _Parts.of(token)
        return bool(parts.content) and not self._tells(parts.ids) and self._keys.number(parts.said) > 1

    def known(self, token: str) -> str:
        """Return whether an answer was known before any of these was asked for: `KNOWN`, `PERHAPS`, or ""."""
        parts = _Parts.of(token)
        return "" if parts.said in self._fresh else parts.known

    def content(self, token: str) -> str:
        """Return the hash of what was answered; "" where nothing is known of it."""
        return _Parts.of(token).content

    def _tells(self, ids: str) -> bool:
        return bool(ids) and self._contents.number(ids) == 1 and (self._trusts_weak or not ids.startswith(_WEAK))

    def _is_no_chance(self, weak: list[_Parts]) -> bool:
        """Whether ids of a small range come with one content each, which chance would hardly do as often."""
        if any(self._contents.number(parts.ids) > 1 for parts in weak):
            return False
        again = sum(self._keys.number(said) - 1 for said in {parts.said for parts in weak})
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
