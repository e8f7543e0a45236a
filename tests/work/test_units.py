"""A unit is named by the inputs of a program's call, which takes time: only where draws are numbered within it."""

from __future__ import annotations

from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl


class Given(dspy.Example):  # type: ignore[misc]
    """An input that counts how often somebody looks into it."""

    looked_into = 0

    def toDict(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802 - DSPy's
        """Return its fields."""
        type(self).looked_into += 1
        return super().toDict(*args, **kwargs)


class Passes(dspy.Module):  # type: ignore[misc]
    """A program that calls one within it with what it is given."""

    def __init__(self, inner: Any = None) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, given: Any) -> Any:
        """Pass it on."""
        return given if self.inner is None else self.inner(given)


@pytest.mark.parametrize(("name", "expected"), [("compile", 0), ("eval", 1)])
def test_inputs_are_looked_at_once_where_draws_are_made(
    name: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a phase that makes no draws nobody looks into the inputs, and in one that does once, for the outermost."""
    monkeypatch.setattr(Given, "looked_into", 0)
    with cachectl.phase(name):
        Passes(Passes())(Given(question="How?"))
    assert expected == Given.looked_into
