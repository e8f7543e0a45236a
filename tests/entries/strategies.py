"""Values of every kind that has a stored form, and what it means that two are the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

SURROGATES = st.text(st.characters())  # hypothesis leaves surrogates out unless they are asked for
TEXT = st.one_of(st.text(), SURROGATES, st.sampled_from(["$", "\ud800", "a\udfffb", "\x00", ""]))
HASHABLE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.binary()),
    lambda inner: st.one_of(st.tuples(inner, inner), st.frozensets(inner, max_size=3)),
    max_leaves=6,
)
VALUES = st.recursive(
    st.one_of(
        HASHABLE,
        st.integers(-(2**80), 2**80),
        st.sampled_from([2**63, -(2**63), 2**64, -(2**63) - 1, 10**4000, -(10**4000)]),
        st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308]),
        st.builds(bytearray, st.binary()),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(HASHABLE, inner, max_size=4),
        st.dictionaries(st.sampled_from(["$", "v", "of", "cost", "dtype", "shape"]), inner, max_size=6),
        st.tuples(inner),
        st.sets(HASHABLE, max_size=3),
    ),
    max_leaves=20,
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same, types, order and signs included. NaN is the same as NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, dict):
        return same([item for pair in one.items() for item in pair], [item for pair in other.items() for item in pair])
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return bool(one == other)
