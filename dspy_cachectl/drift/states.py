"""In which states a model answers within one passage through a phase: by which name, and with which fingerprint."""

from __future__ import annotations

from typing import NamedTuple

from dspy_cachectl.entries.model_names import is_same_name
from dspy_cachectl.escapes import harmless
from dspy_cachectl.stores.base import OTHERS

Asked = tuple[str, str | None]
"""A model's name, and where it is served."""

_MOST_STATES = 20
_LONGEST = 80


class State(NamedTuple):
    """How a provider says that a model answers.

    Attributes:
        name: By which name.
        fingerprint: Its `system_fingerprint`; "" where it says none.
    """

    name: str
    fingerprint: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint})" if self.fingerprint else self.name

    def is_same(self, other: State) -> bool:
        """Tell whether nothing that both say tells one from the other."""
        alike = self.fingerprint == other.fingerprint or not (self.fingerprint and other.fingerprint)
        return alike and is_same_name(self.name, other.name)


class Met(NamedTuple):
    """A state that was met.

    Attributes:
        state: The state.
        first: The one that was met first.
        differs: Whether it is another one than that.
        is_new: Whether it is met for the first time.
    """

    state: State
    first: State
    differs: bool
    is_new: bool = False


class Followed(NamedTuple):
    """A state of a model, where it is served, that is new to the store; and the last one that the store knew before."""

    model: str
    endpoint: str | None
    state: str
    before: str


class States:
    """The states that were met in one passage, of each model.

    Attributes:
        first: What was said with the first answer of each: by which names it came, and with which fingerprints.
        followed_by: Those that are new to the store.
    """

    def __init__(self) -> None:
        self.first: dict[Asked, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._of: dict[Asked, list[State]] = {}
        self.followed_by: list[Followed] = []

    def met(self, asked: Asked, names: tuple[str, ...], fingerprints: tuple[str, ...]) -> Met:
        """Note how an answer was given."""
        self.first.setdefault(asked, (names, fingerprints))
        state = State(_short(names), _short(fingerprints))
        known = self._of.setdefault(asked, [])
        is_new = state not in known
        if is_new and len(known) >= _MOST_STATES:
            state, is_new = State(OTHERS, OTHERS), False
        elif is_new:
            known.append(state)
        return Met(state, known[0], differs=not state.is_same(known[0]), is_new=is_new)

    def followed(self, asked: Asked, state: State, before: State) -> None:
        """Note that a state is new to the store, which knew another one of the model."""
        self.followed_by.append(Followed(*asked, str(state), str(before)))


def _short(names: tuple[str, ...]) -> str:
    return harmless(" + ".join(names))[:_LONGEST]
