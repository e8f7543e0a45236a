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
    plain = answer if type(answer) is dict else values.response_fields(answer)
    return _shaped(plain, tagged=plain is not answer) or Stored(*values.dumps(answer))


def stored_json(plain: Any, *, tagged: bool) -> Stored:
    """Return the stored form of an answer that is JSON, with tags or without any."""
    vector = None if tagged else numbers.packed(plain)
    if vector is not None:
        return Stored(vector, tagged=False, is_vector=True)
    return _shaped(plain, tagged=tagged) or Stored(orjson.dumps(plain), tagged)


def _shaped(plain: Any, *, tagged: bool) -> Stored | None:
    """Return the stored form of a mapping as shape and leaves; None where it has none, or tags below its root."""
    shaped = shapes.taken_apart(plain) if type(plain) is dict else None
    if shaped is None:
        return None
    body = orjson.dumps(plain)
    has_only_these = values.is_root_only(body) if tagged else not values.may_hold_tags(body)
    return Stored(body, tagged, shaped=shaped) if has_only_these else None
