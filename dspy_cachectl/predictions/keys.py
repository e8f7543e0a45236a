"""What a prediction depends on, and what two sets of predictions differ in, in words."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pydantic

from dspy_cachectl.fingerprints import canonical
from dspy_cachectl.fingerprints.models import ModelIdentity
from dspy_cachectl.fingerprints.programs import Fingerprint, changed

KEY_VERSION = 2
"""Part of every key. Raised when the meaning of a key changes."""


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

    @property
    def base(self) -> str:
        """The hash of all but the data: predictions of one question are good in any data set. 64 hex digits."""
        return canonical.digest([KEY_VERSION, self.model, self.program.hash, self.generation])

    @property
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
        *_model_differences(before.model, after.model),
        *(f"program: {line}" for line in changed(before.program, after.program)),
        *(f"generation: {line}" for line in _option_differences(before.generation, after.generation)),
    ]


def _model_differences(before: ModelIdentity, after: ModelIdentity) -> list[str]:
    lines = []
    for name in ("model", "version", "endpoint"):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            lines.append(f"model: {'name' if name == 'model' else name} {old!r} is now {new!r}")
    if before.checkpoint != after.checkpoint:
        lines.append("model: the content of its checkpoint changed")
    if before.kind != after.kind:
        lines.append("model: the class of the LM, or its source, changed")
    if before.others != after.others:
        old_others, new_others = dict(before.others), dict(after.others)
        names = sorted({*old_others, *new_others})
        lines += [
            f"model: the LM of {name!r} changed" for name in names if old_others.get(name) != new_others.get(name)
        ] or ["model: the LMs of the program changed places"]
    return lines


def _option_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new:
            if name == "others" or len(f"{old!r}{new!r}") > 200:
                lines.append(f"{name} changed")
            else:
                lines.append(f"{name} {old!r} is now {new!r}")
    return lines
