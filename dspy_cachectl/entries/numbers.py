"""A vector as bytes: what an embedder answers to one text, a list of floats in a list.

JSON takes several times as long to read it, and as much room. Each float keeps all of its bits: they are written as
halves of eight bytes only where that leaves each of them what it was.
"""

from __future__ import annotations

import math
import sys
from array import array
from typing import Any

from dspy_cachectl.boundary.reading import MOST_VALUES
from dspy_cachectl.errors import CorruptEntryError

_WHOLE, _HALF = "d", "f"
_MOST = MOST_VALUES // 2  # as JSON it can be read, too


def packed(answer: Any) -> bytes | None:
    """Return a vector as bytes; None of any other answer, and of numbers that JSON has not."""
    if type(answer) is not list or len(answer) != 1 or type(answer[0]) is not list:
        return None
    (vector,) = answer
    if not (set(map(type, vector)) == {float} and len(vector) <= _MOST and all(map(math.isfinite, vector))):
        return None
    whole, half = array(_WHOLE, vector), array(_HALF, vector)
    kept = half if half.tolist() == vector else whole
    return kept.typecode.encode() + _as_written(kept).tobytes()


def unpacked(data: bytes) -> array[float]:
    """Return the floats of the vector that `packed` made bytes of.

    Raises:
        CorruptEntryError: If it made none of them.
    """
    kind = data[:1].decode("latin-1")
    if kind not in {_WHOLE, _HALF}:
        raise CorruptEntryError("the entry's vector cannot be decoded: it does not say how long its numbers are")
    numbers: array[float] = array(kind)
    if len(data) > _MOST * numbers.itemsize + 1:
        raise CorruptEntryError(f"the entry's vector cannot be decoded: it has more than {_MOST:,} numbers")
    try:
        numbers.frombytes(data[1:])
    except ValueError as error:
        raise CorruptEntryError(f"the entry's vector cannot be decoded: {error}") from error
    return _as_written(numbers)


def _as_written(numbers: array[float]) -> array[float]:
    """Return numbers with the bytes of each in the order of a file, or as they are in memory: the same either way."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
