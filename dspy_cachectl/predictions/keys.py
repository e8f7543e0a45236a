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

KEY_VERSION = 5
"""Part of every key. Raised when the meaning of a key changes."""
_ANOTHER = 6
"""How unlike two programs are at least that are not the same one, before and after it was edited."""
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


def distance(one: SnapshotKey, other: SnapshotKey) -> float:
    """Return how unlike two keys are; 0 for the same. An edited program is nearer than another model or program."""
    return (
        4 * (one.model != other.model)
        + _distance(one.program, other.program)
        + 2 * (one.generation != other.generation)
        + (one.dataset != other.dataset)
    )


def is_near(one: SnapshotKey, other: SnapshotKey) -> bool:
    """Tell whether two keys are of the same data, or of the same program, be it edited."""
    return one.dataset == other.dataset or _distance(one.program, other.program) < _ANOTHER


def _distance(one: Fingerprint, other: Fingerprint) -> float:
    """Return how unlike two programs are: 0 for the same, less than `_ANOTHER` for an edited one."""
    if one.hash == other.hash:
        return 0.0
    names = {*one.parts, *other.parts}
    share = sum(one.parts.get(name) != other.parts.get(name) for name in names) / (len(names) or 1)
    sources = {name for name in names if name.startswith("source:")}
    is_edited = one.parts.get("self.class") == other.parts.get("self.class") and any(
        name in one.parts and name in other.parts for name in sources
    )
    return (2 if is_edited else _ANOTHER) + share


def differences(before: SnapshotKey, after: SnapshotKey) -> list[str]:
    """Say in words what differs between two keys but for the data, one line each."""
    return [
        *(f"model: {line}" for line in _differences(_in_words(before.model), _in_words(after.model))),
        *(f"model: {line}" for line in _own_lms(dict(before.model.others), dict(after.model.others))),
        *(f"program: {line}" for line in changed(before.program, after.program)),
        *(f"generation: {line}" for line in _told(_by_lm(before.generation), _by_lm(after.generation))),
    ]


def _in_words(model: ModelIdentity) -> dict[str, Any]:
    return {
        "name": model.model,
        "version": model.version,
        "endpoint": model.endpoint,
        "the content of its checkpoint": model.checkpoint,
        "the class of the LM, or its source,": model.kind,
    }


def _own_lms(before: Mapping[str, ModelIdentity], after: Mapping[str, ModelIdentity]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        if name not in before:
            yield f"{name!r} is an LM of the program's own now"
        elif name not in after:
            yield f"{name!r} was an LM of the program's own"
        elif before[name] != after[name]:
            yield f"the LM of {name!r} changed"


def _by_lm(generation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return how each LM is told to generate: the program's own by their places, and by "" the one for all the rest."""
    options = dict(generation)
    found: dict[str, Mapping[str, Any]] = dict(options.pop("others", {}))
    own = list(found.values())
    if not own or options.keys() - {"depends_on"}:
        found[""] = options
    elif all(canonical.text(one) == canonical.text(own[0]) for one in own):
        found[""] = {**own[0], **options}  # where all are told the same, that is what another one is compared with
    return found


def _told(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Say how what is told differs, LM by LM: what has none of its own is told what all the rest is."""
    said: set[str] = set()
    for place in sorted({*before, *after}):
        old, new = (side.get(place, side.get("")) for side in (before, after))
        lines = set(_differences(old, new)) - said if old is not None and new is not None else set()
        said |= lines
        yield from (f"{line} for {place!r}" if place else line for line in sorted(lines))


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if canonical.text(old) != canonical.text(new):  # to Python, True is 1
            is_told = not name.startswith("the ") and len(f"{old!r}{new!r}") <= _LONGEST
            yield f"{name} {old!r} is now {new!r}" if is_told else f"{name} changed"
