"""Which entries are in a shared store: from the lists of labels, and never by walking through the server's keys.

A list may tell of entries that have expired, or that the server has removed to make room. Who reads such a list takes
them out of it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

from dspy_cachectl.errors import StoreUnavailableError
from dspy_cachectl.stores.base import Label
from dspy_cachectl.stores.redis import layout, scripts
from dspy_cachectl.stores.redis.client import Client
from dspy_cachectl.stores.redis.commands import Command
from dspy_cachectl.stores.redis.layout import HEAD, TAGS, Names
from dspy_cachectl.stores.rows import Order, Rows, StoredEntry

_AT_ONCE = 100
_LABELS = 1000
"""How many commands are sent at once, and how many labels are read by one."""
_NEWEST_LABELS = 64
_SAMPLED = 6
"""How many labels of each tag, and how many entries of each, are looked at to tell how it is with all."""
_OVERHEAD = 370
"""What a server takes for an entry beside its bytes: name, list, expiry."""
_ROWS = 500
_VALUES = 20
"""How many rows are read at a time, without and with what they hold."""


class Place(NamedTuple):
    """Where an entry stands in the lists.

    Attributes:
        stored: When it was stored, in Unix seconds.
        tag: The tag of its key.
        label: The text of its label.
        member: Its key as it stands in lists.
    """

    stored: float
    tag: str
    label: bytes
    member: bytes

    @property
    def key(self) -> str:
        """The entry's key."""
        return layout.key_of(self.member)


@dataclass
class _Walk:
    """How far the labels of one tag have been read, those first under which something was put last."""

    tag: str
    start: int = 0
    is_over: bool = False


@dataclass
class _Seen:
    """What was seen of labels: most have the same in every tag."""

    matches: Callable[[Label], bool]
    known: dict[bytes, bool] = field(default_factory=dict)

    def __call__(self, text: bytes) -> bool:
        found = self.known.get(text)
        if found is None:
            found = self.known[text] = self.matches(layout.label_of(text))
        return found


class Lists:
    """The lists of one store.

    Args:
        client: The way to the server.
        names: The names of its keys.
        patience: How long many commands at once may take, in seconds.
    """

    def __init__(self, client: Client, names: Names, *, patience: float) -> None:
        self._client = client
        self._names = names
        self._patience = patience

    def counts(self) -> dict[bytes, int]:
        """Return how many entries are filed under each label, as lists tell it."""
        counts: dict[bytes, int] = {}
        walks = [_Walk(tag) for tag in TAGS]
        while walks:
            replies = self._many([self._labels(walk) for walk in walks])
            for walk, found in zip(walks, replies, strict=True):
                for label, count in zip(found[::2], found[1::2], strict=True):
                    if count:
                        counts[label] = counts.get(label, 0) + count
                walk.start += _LABELS
                walk.is_over = len(found) < 2 * _LABELS
            walks = [walk for walk in walks if not walk.is_over]
        return counts

    def _labels(self, walk: _Walk) -> Command:
        base = self._names.base(walk.tag)
        return scripts.LABELS, base + b"labels", base, walk.start, walk.start + _LABELS - 1

    def places(
        self, rows: Rows, *, order: Order = "age", reverse: bool = False, limit: int | None = None
    ) -> list[Place]:
        """Return where entries stand, in order.

        Args:
            rows: Which entries.
            order: What they are sorted by.
            reverse: The other way round.
            limit: How many at most, all of which are there; None for all that the lists tell of.
        """
        if order != "age":
            return self._sorted_by(order, self._all(rows), reverse=reverse)[:limit]
        if limit is None:
            return sorted(self._all(rows), key=attrgetter("stored"), reverse=not reverse)
        more = 0
        while True:
            found = self._first(rows, limit + more, reverse=reverse)
            sizes = list(self.sizes(found))
            there = [place for place, size in sizes if size is not None]
            if len(there) >= limit or len(found) < limit + more:
                return there[:limit]
            if not self._mended([place for place, size in sizes if size is None]):
                more = 2 * more + limit

    def _first(self, rows: Rows, limit: int, *, reverse: bool) -> list[Place]:
        best: list[Place] = []
        pick = heapq.nsmallest if reverse else heapq.nlargest
        seen, walks = _Seen(rows.matches), [_Walk(tag) for tag in TAGS]
        while walks and limit:
            listed = self._next_labels(walks)
            ranges = [(tag, text) for tag, text, _ in listed if seen(text)]
            if reverse:
                # The first of all lie in the lists that begin first.
                heads = pick(limit, self._in_lists(ranges, rows, 1, reverse=True), key=attrgetter("stored"))
                ranges = list(dict.fromkeys((place.tag, place.label) for place in heads))
            more = self._in_lists(ranges, rows, limit, reverse=reverse)
            best = pick(limit, chain(best, more), key=attrgetter("stored"))
            last = {tag: when for tag, _, when in listed}
            is_full = len(best) == limit and not reverse
            # Nothing in the labels that follow was stored after what was put last under the one before.
            walks = [walk for walk in walks if not walk.is_over and not (is_full and last[walk.tag] < best[-1].stored)]
        return best

    def _next_labels(self, walks: Sequence[_Walk]) -> list[tuple[str, bytes, float]]:
        """Return some more labels of tags, each with when something was put under it last."""
        found: list[tuple[str, bytes, float]] = []
        commands: list[Command] = []
        for walk in walks:
            size = _NEWEST_LABELS if walk.start < _LABELS else _LABELS
            commands.append(
                ("ZREVRANGE", self._names.base(walk.tag) + b"labels", walk.start, walk.start + size - 1, "WITHSCORES")
            )
            walk.start += size
        for walk, command, reply in zip(walks, commands, self._many(commands), strict=True):
            pairs = _pairs(reply)
            walk.is_over = len(pairs) < command[3] - command[2] + 1
            found += ((walk.tag, label, when) for label, when in pairs)
        return found

    def _all(self, rows: Rows) -> list[Place]:
        seen, walks = _Seen(rows.matches), [_Walk(tag) for tag in TAGS]
        ranges: list[tuple[str, bytes]] = []
        while walks:
            listed = self._next_labels(walks)
            ranges += ((tag, text) for tag, text, _ in listed if seen(text))
            walks = [walk for walk in walks if not walk.is_over]
        return self._in_lists(ranges, rows, None, reverse=False)

    def _in_lists(
        self, ranges: Sequence[tuple[str, bytes]], rows: Rows, limit: int | None, *, reverse: bool
    ) -> list[Place]:
        found: list[Place] = []
        command = "ZRANGEBYSCORE" if reverse else "ZREVRANGEBYSCORE"
        few = () if limit is None else ("LIMIT", 0, limit)
        for least, most in _windows(rows):
            ends = (least, most) if reverse else (most, least)
            for some in batches(ranges, _AT_ONCE):
                commands: list[Command] = [
                    (command, self._names.filed(tag, text), *ends, "WITHSCORES", *few) for tag, text in some
                ]
                for (tag, text), reply in zip(some, self._many(commands), strict=True):
                    found += (Place(when, tag, text, member) for member, when in _pairs(reply))
        return found

    def _sorted_by(self, order: Order, places: list[Place], *, reverse: bool) -> list[Place]:
        if order == "size":
            sizes = {(place.tag, place.member): size or 0 for place, size in self.sizes(places)}
        else:
            sizes = {(tag, member): count for tag in TAGS for member, (count, _) in self._served_in(tag).items()}
        return sorted(
            places, key=lambda place: (sizes.get((place.tag, place.member), 0), place.stored), reverse=not reverse
        )

    def _served_in(self, tag: str) -> dict[bytes, tuple[int, float | None]]:
        (found,) = self._many([("HGETALL", self._names.base(tag) + b"served")])
        pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        return {member: _served(text) for member, text in pairs}

    # -- rows

    def sizes(self, places: Sequence[Place]) -> Iterator[tuple[Place, int | None]]:
        """Yield places, each with how many bytes its entry has; None where it is gone, or filed elsewhere."""
        for some in batches(places, _ROWS):
            commands = chain.from_iterable(self._looking_at(place) for place in some)
            replies = self._many(list(commands))
            for place, head, size in zip(some, replies[::2], replies[1::2], strict=True):
                yield place, size if _is_filed(head, place.label) else None

    def _looking_at(self, place: Place) -> tuple[Command, Command]:
        name = self._names.entry(place.key)
        return ("GETRANGE", name, 0, HEAD.size + len(place.label) - 1), ("STRLEN", name)

    def rows(self, places: Sequence[Place]) -> Iterator[StoredEntry]:
        """Yield entries without what they hold; those that are gone are left out, and taken out of the lists."""
        for some in batches(places, _ROWS):
            served = self._many([("HGET", self._names.base(place.tag) + b"served", place.member) for place in some])
            gone = []
            for (place, size), used in zip(self.sizes(some), served, strict=True):
                if size is None:
                    gone.append(place)
                else:
                    yield _stored(place, size, used)
            self._mended(gone)

    def entries(self, places: Sequence[Place]) -> Iterator[tuple[StoredEntry, Callable[[], bytes]]]:
        """Yield entries as `rows` does, each with a function that returns its bytes.

        The function raises `StoreError` where they cannot be read.
        """
        for some in batches(places, _VALUES):
            commands: list[Command] = [("GET", self._names.entry(place.key)) for place in some]
            commands += [("HGET", self._names.base(place.tag) + b"served", place.member) for place in some]
            replies = self._many(commands)
            gone = []
            for place, data, used in zip(some, replies, replies[len(some) :], strict=False):
                if data is None or not _is_filed(data, place.label):
                    gone.append(place)
                else:
                    yield _stored(place, len(data), used), partial(_value, data)
            self._mended(gone)

    def beginning_with(self, prefix: str, *, limit: int) -> list[Place]:
        """Return where the answers stand whose keys begin with a text, by key."""
        text = prefix.encode("utf-8", "surrogatepass")
        texts, found = [text, layout.TEXT + text], []
        if len(prefix) >= 2 and not set(prefix) - set("0123456789abcdef"):
            # All hashes that begin alike have one tag; other keys may have any.
            begins = bytes.fromhex(prefix[: len(prefix) // 2 * 2])
            found = self._answers(layout.tag_of_hash(prefix), [begins], prefix)
        found = found or [place for tag in TAGS for place in self._answers(tag, texts, prefix)]
        return [place for place, size in self.sizes(sorted(found, key=attrgetter("key"))[:limit]) if size is not None]

    def _answers(self, tag: str, begins: Sequence[bytes], prefix: str) -> list[Place]:
        found = (place for place in self._beginning(tag, begins) if place.key.startswith(prefix))
        return [place for place in found if layout.label_of(place.label).is_answer]

    def _beginning(self, tag: str, begins: Sequence[bytes]) -> Iterator[Place]:
        base, start = self._names.base(tag), 0
        while True:
            command = (scripts.BEGINNING, base + b"labels", base, start, start + _AT_ONCE - 1, *begins)
            ((count, *found),) = self._many([command])
            for label, member, stored in zip(found[::3], found[1::3], found[2::3], strict=True):
                yield Place(float(stored), tag, label, member)
            start += _AT_ONCE
            if count < _AT_ONCE:
                return

    def bytes_used(self) -> int:
        """Return how many bytes the entries take up; about, by some of them."""
        found = self.sample()
        sizes = [size for _, size in found if size is not None]
        if not sizes:
            return 0
        there = len(sizes) / len(found) * sum(self.counts().values())
        return int(there * (sum(sizes) / len(sizes) + _OVERHEAD))

    def share_gone(self) -> float:
        """Return how large a part of what the lists tell is gone, by some of it; from 0 to 1."""
        found = self.sample()
        return sum(size is None for _, size in found) / max(len(found), 1)

    def sample(self) -> list[tuple[Place, int | None]]:
        """Return some places, each with how many bytes its entry has; None where that is gone."""
        some: list[Command] = [("ZRANDMEMBER", self._names.base(tag) + b"labels", _SAMPLED) for tag in TAGS]
        labels = [(tag, text) for tag, found in zip(TAGS, self._many(some), strict=True) for text in found]
        of_each: list[Command] = [("ZRANDMEMBER", self._names.filed(*one), _SAMPLED, "WITHSCORES") for one in labels]
        return list(
            self.sizes(
                [
                    Place(when, tag, text, member)
                    for (tag, text), reply in zip(labels, self._many(of_each), strict=True)
                    for member, when in _pairs(reply)
                ]
            )
        )

    def _mended(self, gone: Sequence[Place]) -> bool:
        """Take out of the lists what is gone, unless they can only be read. Return whether it was done."""
        try:
            self.forget(gone)
        except StoreUnavailableError:  # a replica, or a user who may not write; where it is away the next read tells
            return False
        return True

    def forget(self, places: Sequence[Place]) -> int:
        """Take out of the lists what is gone. Return how many that were."""
        by_label: dict[tuple[str, bytes], list[Place]] = {}
        for place in places:
            by_label.setdefault((place.tag, place.label), []).append(place)
        commands: list[Command] = [
            (
                *(scripts.FORGET, self._names.base(tag) + b"labels", self._names.base(tag), label),
                *chain.from_iterable((self._names.entry(place.key), place.member) for place in some),
            )
            for (tag, label), of_label in by_label.items()
            for some in batches(of_label, _ROWS)
        ]
        return sum(sum(self._many(some, doing="write")) for some in batches(commands, _AT_ONCE))

    def _many(self, commands: Sequence[Command], *, doing: Any = "read") -> list[Any]:
        return self._client.many(doing, commands, seconds=self._patience)


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield some items at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _pairs(reply: Sequence[Any]) -> list[tuple[bytes, float]]:
    # A client says by its kind whether it pairs them.
    if reply and isinstance(reply[0], (tuple, list)):
        return [(member, float(score)) for member, score in reply]
    return [(member, float(score)) for member, score in zip(reply[::2], reply[1::2], strict=True)]


def _windows(rows: Rows) -> list[tuple[str, str]]:
    """Return the least and the greatest time of what is meant, as the server is asked for it."""
    least = "-inf" if rows.after is None else f"({rows.after!r}"
    if rows.before is None or rows.before > rows.ahead:
        return [(least, "+inf" if rows.after is None else repr(rows.ahead))]
    windows = [(least, f"({rows.before!r}")]
    if rows.after is None and rows.ahead < math.inf:
        windows.append((f"({rows.ahead!r}", "+inf"))
    return windows


def _is_filed(data: bytes, label: bytes) -> bool:
    """Tell whether an entry, of which at least the beginning is given, is there and filed under a label."""
    if len(data) < HEAD.size + len(label):
        return False
    *_, filed, _ = HEAD.unpack_from(data)
    return bool(filed == len(label)) and data[HEAD.size : HEAD.size + filed] == label


def _value(data: bytes) -> bytes:
    return layout.unpack(data).value


def _served(text: bytes | None) -> tuple[int, float | None]:
    if text is None:
        return 0, None
    count, _, when = text.partition(b" ")
    return int(count), float(when)


def _stored(place: Place, size: int, used: bytes | None) -> StoredEntry:
    count, when = _served(used)
    return StoredEntry(place.key, layout.label_of(place.label), place.stored, count, when, size)
