"""A machine that is slow itself: the limit holds all the same, and the server is not blamed for it."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.context.evaluations import Evaluation
from dspy_cachectl.tracking import client, delivery, sync
from dspy_cachectl.tracking.log import log_results
from dspy_cachectl.tracking.outbox import Lease, Outbox
from dspy_cachectl.tracking.phase_records import PhaseResults
from tests.limits import PATIENCE, SOON
from tests.tracking.rest import Rest

LIMIT = 0.5

pytestmark = pytest.mark.usefixtures("mlflow_set")


@contextlib.contextmanager
def _waits(owner: Any, name: str, gate: threading.Event) -> Iterator[threading.Event]:
    """Let a function wait at its beginning; set when one of its calls is done."""
    real, done = getattr(owner, name), threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        assert gate.wait(PATIENCE)
        try:
            return real(*arguments, **options)
        finally:
            done.set()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, name, slow)
        yield done
        gate.set()
        assert done.wait(PATIENCE)


def _importing(gate: threading.Event) -> Any:
    return _waits(client, "load", gate)


def _reading_the_outbox(gate: threading.Event) -> Any:
    return _waits(Outbox, "lease", gate)


def _looking_whose_it_is(gate: threading.Event) -> Any:
    return _waits(Lease, "holds", gate)


@pytest.mark.parametrize(
    ("slow", "reason"),
    [
        (_importing, "importing MLflow was not done within the limit"),
        (_reading_the_outbox, "0.5 s were not enough for this machine's own part of it"),
        (_looking_whose_it_is, "it was not done within"),
    ],
)
def test_what_is_slow_here_ends_with_the_limit_and_costs_the_server_nothing(
    slow: Callable[[threading.Event], Any],
    reason: str,
    server: Rest,
    outbox: Outbox,
    gate: threading.Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The record is on disk before, the reason says whose fault it is, and the next call is logged at once."""
    with cachectl.phase("eval") as run:
        pass
    with slow(gate):
        outcome = cachectl.log_to_mlflow(run, timeout=LIMIT)
        assert (outcome.status, outcome.seconds < SOON) == ("pending", True)
        assert reason in outcome.reason
        assert "did not answer" not in caplog.text
        assert outcome.uid in {one.uid for one in outbox.waiting()}
    with cachectl.phase("eval") as later:
        pass
    assert cachectl.log_to_mlflow(later, timeout=PATIENCE).status == "logged"
    sync()
    assert outbox.waiting() == []
    assert len(server.runs_of(str(outcome.uid))) == 1


def test_an_outbox_that_another_has_locked_ends_with_the_limit(
    server: Rest, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    """What could not be written down in time is said not to be there, and comes there as soon as it can."""
    with cachectl.phase("eval") as run:
        pass
    assert cachectl.log_to_mlflow(run, timeout=0).status == "pending"
    with contextlib.closing(sqlite3.connect(outbox.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        outcome = cachectl.log_to_mlflow(run, timeout=LIMIT)
        assert (outcome.status, outcome.uid, outcome.seconds < SOON) == ("pending", None, True)
        assert "writing them to the outbox was not done within 0.5 s" in caplog.text
        other.execute("ROLLBACK")
    for work in [work for work, what in delivery.limiter._under_way.items() if what == "the outbox"]:
        work.result(PATIENCE)
    assert len(outbox.waiting()) == 2
    assert {one.status for one in sync()} <= {"logged", "busy"}
    assert "did not answer" not in caplog.text


@pytest.mark.parametrize("part", ["word sk-abc password= ", "a"])
def test_an_error_without_end_reaches_the_outbox_within_the_limit(outbox: Outbox, part: str) -> None:
    """Only what is shown of a text is looked at for secrets: no other thread runs meanwhile."""
    key = "sk-proj-q8Zx" + "V3nT7pLw2RkY9sBd4HfC"
    error = f"{key} {part * (100_000_000 // len(part))}"
    outcome = log_results(PhaseResults([Evaluation(metric="m", n=1, started=1.0, ended=2.0, error=error)]), timeout=0)
    (waiting,) = outbox.waiting()
    assert outcome.uid == waiting.uid
    told = waiting.read().tags["dspy_cachectl.error"]
    assert (told[:10], len(told)) == ("[removed] ", 500)
