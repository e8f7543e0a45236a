"""What a store is: keys to bytes, with a label each. It knows nothing of answers, phases or DSPy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Protocol, runtime_checkable

_SEPARATOR = "\x1f"

RUN_KIND = "run"
"""The kind of what a store keeps about runs: their descriptions."""

OTHERS = "(others)"
"""The phase and the model of what is told apart no further: a program may name a phase for each of its requests."""

DSPY_KIND = "dspy"
"""The kind of the answers that come out of DSPy's own cache and were not asked for yet."""


def dspy_key(key: str) -> str:
    """Return the key of an answer that DSPy's own cache keeps under a key."""
    return f"{DSPY_KIND}:{key}"


@dataclass(frozen=True)
class Label:
    """What an entry is filed under, so that people can list, sum and clear without reading it.

    Attributes:
        kind: What it is an answer to; or `RUN_KIND`, for what is no answer.
        model: The model's name.
        phase: The phase that bought it.
        role: The LM's role, or "".
        run: The run that it is a draw of, or "".
    """

    kind: str = ""
    model: str = ""
    phase: str = ""
    role: str = ""
    run: str = ""

    @property
    def is_answer(self) -> bool:
        """Whether it is an answer that is filed under it, and not what the store keeps about a run."""
        return self.kind != RUN_KIND

    def encode(self) -> str:
        """Return one string that sorts by kind, then run, model, phase and role."""
        parts = (self.kind, self.run, self.model, self.phase, self.role)
        return _SEPARATOR.join(part.replace(_SEPARATOR, " ") for part in parts)

    @classmethod
    def decode(cls, text: object) -> Label:
        """Return the label that `encode` made; an empty one for anything else that stands in a table."""
        return _decoded(text) if isinstance(text, str) else cls()


@lru_cache(maxsize=1024)
def _decoded(text: str) -> Label:
    # One for all entries that are filed alike: a store has few labels, and memory keeps one with each entry.
    parts = text.split(_SEPARATOR)
    if len(parts) != 5:
        return Label()
    kind, run, model, phase, role = parts
    return Label(kind=kind, model=model, phase=phase, role=role, run=run)


@runtime_checkable
class Store(Protocol):
    """Where entries live. Every method may raise the `StoreError` family, and nothing else."""

    @property
    def location(self) -> str:
        """Where the entries are, as people would write it."""
        ...

    def get(self, key: str) -> bytes | None:
        """Return the bytes kept under a key, or None."""
        ...

    def put(self, key: str, value: bytes, label: Label) -> None:
        """Keep bytes under a key, in place of what was there. When it returns, other processes can read them."""
        ...

    def delete(self, key: str) -> bool:
        """Remove a key. Tell whether it was there."""
        ...

    def keys(self, kind: str | None = None) -> Iterator[str]:
        """Yield the keys, newest first; only those filed under a kind, where one is named."""
        ...

    def labels(self) -> dict[Label, int]:
        """Return how many entries are filed under each label."""
        ...

    def clear(self) -> int:
        """Remove all entries. Return how many there were."""
        ...

    def close(self) -> None:
        """Let go of connections and files. The store may be used again, and opens them anew."""
        ...


class Filed(NamedTuple):
    """What a store keeps under a key.

    Attributes:
        value: The bytes.
        label: What they are filed under.
        mark: What they are known by again, as far as the store tells it at once; or "".
    """

    value: bytes
    label: Label
    mark: str = ""


class Put(NamedTuple):
    """What a store found when it was given an entry.

    Attributes:
        there: The bytes that were there and stay, in place of those that were given; None where these are kept.
        marks: What `KnowingStore.marked` would have returned of the mark's name before; None where none are known.
    """

    there: bytes | None
    marks: dict[str, str] | None


@runtime_checkable
class KnowingStore(Store, Protocol):
    """A store that keeps what was first, and knows an answer again that it keeps under another key. Others do without.

    What an answer is known by is a mark, `name.rest`: two answers of one name and with another rest share a name that
    tells nothing. An entry has one mark or none, which goes with it.
    """

    def put_marked(self, key: str, value: bytes, label: Label, mark: str) -> Put:
        """Keep bytes under a key as `put` does, and their mark, if any; in one step, whoever else does the same."""
        ...

    def put_first(self, key: str, value: bytes, label: Label, mark: str, *, instead_of: bytes | None = None) -> Put:
        """Keep bytes as `put_marked` does, unless others are there: of all who do the same, the first one's stay.

        Args:
            key: The key.
            value: The bytes.
            label: What they are filed under.
            mark: Their mark, or "".
            instead_of: What may be there and goes: what was read, and turned down.
        """
        ...

    def marked(self, name: str) -> dict[str, str]:
        """Return the marks that have a name, each with the key that it was first kept under; two of them at most."""
        ...


@runtime_checkable
class FilingStore(Store, Protocol):
    """A store that tells with an entry what it is filed under, so that a nearer one can file it likewise."""

    def get_filed(self, key: str) -> Filed | None:
        """Return what is kept under a key, or None."""
        ...


def name_of(mark: str) -> str:
    """Return the name in a mark."""
    return mark.partition(".")[0]


def coarser(labels: Sequence[str], *, most: int) -> dict[str, str]:
    """Return which labels are to be counted under which others: a program may name a run, or a phase, for each request.

    Args:
        labels: The labels under which something is counted, encoded; first those that go first. The names of runs hold
            the time, so of some that are sorted the oldest do.
        most: How many are told apart at most. Some more go at once, to be done rarely.
    """
    into = {label: label for label in labels}
    for keeps_phase in (True, False):
        there = list(dict.fromkeys(into.values()))
        surplus = len(there) - most
        if surplus <= 0:
            break
        found = {label: _coarser(label, keeps_phase=keeps_phase) for label in there}
        fine = set([label for label, other in found.items() if label != other][: surplus + most // 2])
        into = {label: found[other] if other in fine else other for label, other in into.items()}
    return {label: other for label, other in into.items() if label != other}


def _coarser(label: str, *, keeps_phase: bool) -> str:
    """Return the label of what is told apart no further: without its run, or without anything but its kind."""
    one = Label.decode(label)
    return (replace(one, run="") if keeps_phase else Label(one.kind, OTHERS, OTHERS)).encode()


@runtime_checkable
class CountingStore(Store, Protocol):
    """A store that remembers how it was used, beyond the process. Others do without."""

    def add_usage(self, used: Mapping[Label, Mapping[str, float]], served: Mapping[str, int]) -> None:
        """Add to what is counted, all or nothing.

        Args:
            used: What happened to calls: counters by what these are filed under.
            served: How often each key was served, to be noted beside the entries. Those that are gone are passed over.
        """
        ...

    def usage(self) -> dict[Label, dict[str, float]]:
        """Return what is counted."""
        ...
