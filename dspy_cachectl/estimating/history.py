"""What calls and answers have cost: of this program, or of the model alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from dspy_cachectl.entries import records
from dspy_cachectl.entries.origins import Origin
from dspy_cachectl.errors import StoreError
from dspy_cachectl.policy import Kind
from dspy_cachectl.predictions.rows import PredictionRow
from dspy_cachectl.stores import Store
from dspy_cachectl.stores.listing import read_entries, row_numbers
from dspy_cachectl.stores.rows import Rows

_MOST = 1000
"""How many calls of a model are looked at, the newest first."""


@dataclass(frozen=True)
class Past:
    """What a call, or an answer of several, has cost.

    Attributes:
        requests: How many requests.
        prompt: How many tokens were read.
        cached: How many of those the provider had in its own cache.
        completion: How many were written.
        cost: US dollars; NaN where that is not known.
        seconds: How long the provider took.
        characters: How long what was asked is; 0 where that is not known.
    """

    requests: float = 0.0
    prompt: float = 0.0
    cached: float = 0.0
    completion: float = 0.0
    cost: float = 0.0
    seconds: float = 0.0
    characters: float = 0.0

    @classmethod
    def of_call(cls, origin: Origin, characters: int = 0) -> Past:
        """Return what a call has cost."""
        return cls(
            requests=origin.requests,
            prompt=origin.prompt_tokens or 0,
            cached=origin.cached_tokens or 0,
            completion=origin.completion_tokens or 0,
            cost=_cost(origin.cost, is_free=origin.kind == Kind.EMBEDDING.value),
            seconds=origin.seconds,
            characters=characters,
        )

    @classmethod
    def of_row(cls, row: PredictionRow) -> Past:
        """Return what a kept answer has cost."""
        return cls(
            requests=len(row.draws),
            prompt=row.prompt_tokens or 0,
            cached=row.cached_tokens or 0,
            completion=row.completion_tokens or 0,
            cost=_cost(row.cost),
            seconds=row.seconds or 0.0,
        )

    @classmethod
    def total(cls, some: Iterable[Past]) -> Past:
        """Return what some have cost together."""
        parts = list(some)
        return cls(**{one.name: sum(getattr(part, one.name) for part in parts) for one in fields(cls)})


@dataclass(frozen=True)
class Calls:
    """Calls of a model that are stored.

    Attributes:
        by_predictor: What those have cost whose system message has this hash.
        all: What all have cost.
    """

    by_predictor: Mapping[str, tuple[Past, ...]]
    all: tuple[Past, ...]


def calls_of(stores: Iterable[Store], model: str) -> Calls:
    """Return what the calls of a model have cost that are stored, those bought last."""
    by_predictor: dict[str, list[Past]] = {}
    found: list[Past] = []
    for data in _entries(stores, model):
        try:
            origin, request = records.decode_origin(data), records.decode_request(data).get("request", {})
        except StoreError:
            continue
        past = Past.of_call(origin, length_of(request))
        found.append(past)
        by_predictor.setdefault(predictor_of(request), []).append(past)
    return Calls({name: tuple(some) for name, some in by_predictor.items() if name}, tuple(found))


def predictor_of(request: Mapping[str, Any]) -> str:
    """Return by what the calls of a predictor are known: its system message, hashed; "" where there is none."""
    first = next(iter(_messages(request)), None)
    if not isinstance(first, Mapping) or first.get("role") not in {"system", "developer"}:
        return ""
    return hashed(str(first.get("content")))


def hashed(text: str) -> str:
    """Return a system message as what is looked up by."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def length_of(request: Mapping[str, Any]) -> int:
    """Return how long the messages of a request are."""
    return sum(len(str(message.get("content"))) for message in _messages(request) if isinstance(message, Mapping))


def _messages(request: Mapping[str, Any]) -> list[Any]:
    found = request.get("messages")
    return found if isinstance(found, list) else []


def _entries(stores: Iterable[Store], model: str) -> Iterator[bytes]:
    rows, left = Rows(lambda label: label.is_answer and label.model == model), _MOST
    for store in stores:
        if not hasattr(store, "exists"):
            continue  # memory keeps no requests
        try:
            for _, read in read_entries(store, row_numbers(store, rows, limit=left)):  # type: ignore[arg-type]
                yield read()
                left -= 1
        except StoreError:
            continue
        if left <= 0:
            return


def _cost(cost: float | None, *, is_free: bool = False) -> float:
    return cost if cost is not None else 0.0 if is_free else float("nan")
