"""Counts, times and texts of others are written in one way everywhere."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

from dspy_cachectl.reports import texts


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (texts.plural(1, "entry", "entries"), "1 entry"),
        (texts.plural(0, "entry", "entries"), "0 entries"),
        (texts.plural(1200, "call"), "1,200 calls"),
        (texts.cut("one\n two", 7), "one two"),
        (texts.cut("one\n two, three", 7), "one tw…"),
        (texts.age(-5.0), "0s"),
        (texts.age(119.0), "119s"),
        (texts.age(120.0), "2m"),
        (texts.age(3 * 86400.0), "3d"),
        (texts.age(100 * 86400.0), "14w"),
        (texts.when(1_800_000_000.0), "2027-01-15 08:00:00 UTC"),
        (texts.when(None), texts.MISSING),
        (texts.when(float("nan")), texts.MISSING),
        (texts.when(1e300), texts.MISSING),
    ],
)
def test_a_number_and_its_unit(written: str, expected: str) -> None:
    """One way for one thing, whatever the machine's time zone."""
    assert expected == written


@dataclass
class _Fact:
    name: str
    where: Path
    kind: _Kind
    counts: Counter[str]
    seen: set[int]
    worth: tuple[float, float]


class _Kind(Enum):
    DAMAGED = "what this means, in words"


def test_a_value_as_json() -> None:
    """An object is its fields, in JSON types all the way down; what JSON has no word for is text."""
    fact = _Fact("x", Path("a/b"), _Kind.DAMAGED, Counter({"one": 2}), {3, 1}, (0.5, math.nan))
    expected = {"name": "x", "where": str(Path("a/b")), "kind": "damaged", "counts": {"one": 2}}
    expected |= {"seen": [1, 3], "worth": [0.5, "nan"]}
    assert [expected, None, {"5": "b'x'"}] == texts.as_json([fact, None, {5: b"x"}])
