"""Ages by clocks that were wrong: what lies ahead may be of any age."""

from __future__ import annotations

import time

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from tests.calls.support import MakeLM
from tests.endpoint import Endpoint

DAY = 86_400.0
NOW = time.time()


def _at(monkeypatch: pytest.MonkeyPatch, moment: float) -> None:
    monkeypatch.setattr(time, "time", lambda: moment)


@pytest.mark.parametrize("ahead", [3600.0, 10 * 365 * DAY, 1e300])
def test_an_answer_that_lies_ahead_is_too_old(
    endpoint: Endpoint, lm: MakeLM, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """Where an age is asked it is bought once more, and that answer is served from then on; elsewhere it is served."""
    asked = lm()
    _at(monkeypatch, NOW + ahead)
    with cachectl.phase("compile"):
        asked("hello")
    _at(monkeypatch, NOW)
    with cachectl.phase("compile"):
        asked("hello")
    assert endpoint.requests == 1
    for _ in range(3):
        with cachectl.phase("recent", Policy.REUSE.with_overrides(max_age=DAY)):
            asked("hello")
    assert endpoint.requests == 2


def test_clocks_that_are_seconds_apart(endpoint: Endpoint, lm: MakeLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that another machine has just stored is new, though its clock is ahead by seconds."""
    asked = lm()
    _at(monkeypatch, NOW + 20)
    with cachectl.phase("compile"):
        asked("hello")
    _at(monkeypatch, NOW)
    with cachectl.phase("recent", Policy.REUSE.with_overrides(max_age=DAY)):
        asked("hello")
    assert endpoint.requests == 1
