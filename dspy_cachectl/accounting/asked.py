"""A model that answered, and how it was asked: a value that is counted, kept and shown."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

_TEXT = (str, type(None))
_KINDS: dict[str, Any] = {
    "model": str,
    **dict.fromkeys(("endpoint", "version", "answered_by", "instead_of", "state", "state_before"), _TEXT),
    "temperature": (int, float, type(None)),
    "lent": bool,
    "calls": int,
    "is_other": bool,
    "embeds": bool,
    "seed": (int, *_TEXT),
}


@dataclass(frozen=True)
class AskedModel:
    """A model that answered, and how it was asked.

    Attributes:
        model: Its name.
        endpoint: The endpoint's identity, or None for the provider's own.
        version: The user's name for a version of it, or None.
        temperature: The temperature that it was sent, or None.
        lent: Whether the phase lent that.
        calls: How many calls of the program it answered.
        answered_by: By which name the answers came, or None where the provider said none.
        is_other: Whether that is another model than was asked.
        instead_of: The model in whose place LiteLLM asked it, as one of its `fallbacks`; None where that is the same.
        seed: The seed that it was sent, or None.
        embeds: Whether it embeds texts, at no temperature.
        state: By which name and with which `system_fingerprint` the answers came, where the provider said that one.
        state_before: In which state it had answered those who use the store before one that was new to it, or None.
    """

    model: str
    endpoint: str | None = None
    version: str | None = None
    temperature: float | None = None
    lent: bool = False
    calls: int = 0
    answered_by: str | None = None
    is_other: bool = False
    instead_of: str | None = None
    seed: int | str | None = None
    embeds: bool = False
    state: str | None = None
    state_before: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what of it says something."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) != one.default}

    @property
    def is_sound(self) -> bool:
        """Whether each part is of the kind that is written."""
        said = vars(self)
        return all(map(isinstance, map(said.get, _KINDS), _KINDS.values())) and self.calls in range(2**31)


def counted(models: Counter[AskedModel]) -> tuple[AskedModel, ...]:
    """Return them with the number of their calls, the busiest first."""
    return tuple(replace(how, calls=calls) for how, calls in models.most_common())


def counted_together(several: Iterable[Iterable[AskedModel]]) -> tuple[AskedModel, ...]:
    """Return the models of several counts as one, the busiest first."""
    calls: Counter[AskedModel] = Counter()
    for one in itertools.chain(*several):
        calls[replace(one, calls=0)] += one.calls
    return counted(calls)


def facts(*made_of: Iterable[AskedModel]) -> dict[str, Any]:
    """Return what is known of the models, as fields of a report's provenance.

    Args:
        made_of: The models of answers that were drawn, and of those that were loaded.
    """
    calls: Counter[AskedModel] = Counter()
    times = Counter(itertools.chain(*made_of))  # nearly all are the same
    for one, often in times.items():
        calls[replace(one, calls=0, seed=None)] += one.calls * often
    models, seeds = counted(calls), {one.seed for one in times}
    return {
        "model": " + ".join(dict.fromkeys(one.model for one in models)) or None,
        "endpoint": _agreed(one.endpoint for one in models),
        "version": _agreed(one.version for one in models),
        "temperature": _agreed(one.temperature for one in models if not (one.lent or one.embeds)),
        "temperature_lent": _agreed(one.temperature for one in models if one.lent),
        "models": models,
        "seeds": tuple(sorted(seeds - {None}, key=str)),
    }


def _agreed(values: Iterable[Any]) -> Any:
    """Return what all say, or None."""
    said = set(values)
    return said.pop() if len(said) == 1 else None
