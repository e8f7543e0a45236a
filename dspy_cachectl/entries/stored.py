"""An answer as its entry holds it: JSON, the shape and the leaves of that, or the bytes of a vector."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from dspy_cachectl.entries import numbers, shapes, values


class Stored(NamedTuple):
    """An answer in its stored form.

    Attributes:
        body: JSON (see `values.dumps`), or a vector (see `numbers`).
        tagged: Whether it holds tags.
        is_vector: Whether it is a vector.
        shaped: What is kept in the place of JSON: its shape and its leaves (see `shapes`); None where JSON is kept.
    """

    body: bytes
    tagged: bool
    is_vector: bool = False
    shaped: bytes | None = None


def stored(answer: Any) -> Stored:
    """Return the stored form of an answer. Raises `values.UnstorableError` where it has none."""
    vector = numbers.packed(answer)
    if vector is not None:
        return Stored(vector, tagged=False, is_vector=True)
    body, tagged = values.dumps(answer)
    is_root_only = tagged and values.is_root_only(body)
    return Stored(body, tagged, shaped=_shaped(orjson.loads(body) if is_root_only else None if tagged else answer))


def stored_json(plain: Any, *, tagged: bool) -> Stored:
    """Return the stored form of an answer that is JSON, with tags or without any."""
    vector = None if tagged else numbers.packed(plain)
    if vector is not None:
        return Stored(vector, tagged=False, is_vector=True)
    body = orjson.dumps(plain)
    return Stored(body, tagged, shaped=_shaped(plain if not tagged or values.is_root_only(body) else None))


def _shaped(plain: Any) -> bytes | None:
    return shapes.taken_apart(plain) if type(plain) is dict else None
