"""What a prediction depends on, and what two sets of predictions differ in, in words."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pydantic

from dspy_cachectl.fingerprints import canonical
from dspy_cachectl.fingerprints.models import ModelIdentity
from dspy_cachectl.fingerprints.programs import Fingerprint, changed

KEY_VERSION = 3
"""Part of every key. Raised when the meaning of a key changes."""
_LONGEST = 200
"""How long two values may be together, in characters, to be shown."""


@dataclass(frozen=True)
class SnapshotKey:
    """What predictions depend on.

    Attributes:
        model: Which models answer.
        program: Which program asks.
        generation: How the models are told to generate.
        dataset: The `hash_of_questions`.
    """

    model: ModelIdentity
    program: Fingerprint
    generation: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = ""

    @functools.cached_property
    def base(self) -> str:
        """The hash of all but the data: predictions of one question are good in any data set. 64 hex digits."""
        return canonical.digest([KEY_VERSION, self.model, self.program.hash, self.generation])

    @functools.cached_property
    def hash(self) -> str:
        """The hash of everything. 64 hexadecimal digits."""
        return canonical.digest([self.base, self.dataset])

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON types, as it stands in a snapshot's metadata."""
        plain: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return plain

    @classmethod
    def from_dict(cls, stored: Any) -> SnapshotKey:
        """Return what `as_dict` was made of. Raises ValueError where it is no key."""
        return _adapter().validate_python(stored)


@functools.cache
def _adapter() -> pydantic.TypeAdapter[SnapshotKey]:
    # Made when it is used: the command line is not to wait for it.
    return pydantic.TypeAdapter(SnapshotKey)


def distance(one: SnapshotKey, other: SnapshotKey) -> int:
    """Return how unlike two keys are; 0 for the same."""
    return (
        4 * (one.model != other.model)
        + 2 * (one.program.hash != other.program.hash)
        + 2 * (one.generation != other.generation)
        + (one.dataset != other.dataset)
    )


def differences(before: SnapshotKey, after: SnapshotKey) -> list[str]:
    """Say in words what differs between two keys but for the data, one line each."""
    return [
        *(f"model: {line}" for line in _differences(_in_words(before.model), _in_words(after.model))),
        *(f"program: {line}" for line in changed(before.program, after.program)),
        *(f"generation: {line}" for line in _differences(before.generation, after.generation)),
    ]


def _in_words(model: ModelIdentity) -> dict[str, Any]:
    return {
        "name": model.model,
        "version": model.version,
        "endpoint": model.endpoint,
        "the content of its checkpoint": model.checkpoint,
        "the class of the LM, or its source,": model.kind,
        **{f"the LM of {name!r}": other for name, other in model.others},
    }


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new:
            is_told = name != "others" and not name.startswith("the ") and len(f"{old!r}{new!r}") <= _LONGEST
            yield f"{name} {old!r} is now {new!r}" if is_told else f"{name} changed"
