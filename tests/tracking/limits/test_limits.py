"""Limits: the one on anything, with its circuit breaker, and those of MLflow's own requests."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import mlflow
import pytest
from mlflow import environment_variables

import dspy_cachectl
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.tracking import deadline, protect_mlflow
from dspy_cachectl.tracking.deadline import CircuitOpenError, DeadlineError, TimeLimiter, check_limit
from tests.limits import PATIENCE
from tests.tracking import servers


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def ask(gate: threading.Event) -> Callable[[], None]:
    """Ask a target that does not answer."""

    def ask() -> None:
        with deadline.asking():
            gate.wait()

    return ask


def test_a_result_and_an_error_reach_the_caller() -> None:
    """What a function returns or raises is what `run` returns or raises."""
    limiter = TimeLimiter()

    def broken() -> None:
        raise ZeroDivisionError("as it was raised")

    assert limiter.run(lambda: 42, limit=60, target="a") == 42
    with pytest.raises(ZeroDivisionError, match="as it was raised"):
        limiter.run(broken, limit=60, target="a")
    assert limiter.run(lambda: "again", limit=60, target="a") == "again"


def test_the_thread_is_a_daemon() -> None:
    """Nothing that hangs keeps the interpreter from ending."""
    assert TimeLimiter().run(lambda: threading.current_thread().daemon, limit=60, target="a") is True


def test_a_time_out_opens_the_circuit_of_its_target_only(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a time-out nothing is started for that target until it has cooled down."""
    clock, started = Clock(), []
    monkeypatch.setattr(deadline, "time", clock)
    limiter = TimeLimiter()

    def ask() -> None:
        with deadline.asking():
            clock.now = 7
            gate.wait()

    with pytest.raises(DeadlineError, match=r"a did not answer within 7 s"):
        limiter.run(ask, limit=0.01, target="a", patience=10)

    with pytest.raises(CircuitOpenError, match="asked again in 300 s"):
        limiter.run(lambda: started.append("too early"), limit=60, target="a")
    assert limiter.run(lambda: "other", limit=60, target="b") == "other"
    clock.now = 308
    assert limiter.run(lambda: "again", limit=60, target="a") == "again"
    assert started == []


@pytest.mark.parametrize(
    ("before", "asked", "answered", "patience", "reason"),
    [
        pytest.param(9, False, False, 10, "10 s were not enough for this machine's own part", id="it was never asked"),
        pytest.param(6, True, False, 10, "a did not answer within 4 s", id="it had less than half of the limit"),
        pytest.param(0, True, False, float("inf"), "a did not answer within 10 s", id="what else waits says nothing"),
        pytest.param(0, True, True, 10, "not done within 10 s, though a answers", id="it has answered all questions"),
    ],
)
def test_what_this_machine_took_is_not_blamed_on_the_target(
    before: float,
    asked: bool,
    answered: bool,
    patience: float,
    reason: str,
    gate: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reason tells the time that the target had, and the target is asked again."""
    clock, limiter, asking = Clock(), TimeLimiter(), threading.Event()
    wait_for = futures.wait
    monkeypatch.setattr(deadline, "time", clock)
    monkeypatch.setattr(futures, "wait", lambda these, timeout: asking.wait(PATIENCE))

    def work() -> None:
        clock.now = before
        with deadline.asking() if asked else contextlib.nullcontext():
            if not answered:
                wait()
        wait()

    def wait() -> None:
        clock.now = 10
        asking.set()
        gate.wait()

    with pytest.raises(DeadlineError, match=reason):
        limiter.run(work, limit=10, target="a", patience=patience)
    monkeypatch.setattr(futures, "wait", wait_for)
    assert limiter.run(lambda: "again", limit=60, target="a") == "again"


def test_a_closed_circuit_is_tried_again(ask: Callable[[], None]) -> None:
    """Who asks for another try gets one."""
    limiter = TimeLimiter()
    with pytest.raises(DeadlineError):
        limiter.run(ask, limit=0.01, target="a", patience=0)
    limiter.close_circuits()
    assert limiter.run(lambda: 1, limit=60, target="a") == 1


def test_no_time_starts_nothing_and_blames_nobody() -> None:
    """A limit of 0 is not the target's fault."""
    limiter, started = TimeLimiter(), []
    with pytest.raises(DeadlineError):
        limiter.run(lambda: started.append(1), limit=0, target="a")
    assert limiter.run(lambda: "again", limit=60, target="a") == "again"
    assert started == []


def test_exit_waits_for_what_can_still_end_and_for_nothing_else(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit gives a push under way its chance, and none to one whose server is known not to answer."""
    limiter = TimeLimiter()
    flying, hung = threading.Event(), threading.Event()
    waits: list[tuple[list[object], float]] = []

    def fly(name: str, began: threading.Event) -> None:
        with deadline.asking():
            began.set()
            gate.wait()

    caller = threading.Thread(
        target=lambda: limiter.run(lambda: fly("a", flying), limit=60, target="answers"), daemon=True
    )
    caller.start()
    with pytest.raises(DeadlineError):
        limiter.run(lambda: fly("b", hung), limit=0.01, target="hangs", patience=0)
    assert flying.wait(PATIENCE)
    (answers,) = (future for future, target in limiter._under_way.items() if target == "answers")
    monkeypatch.setattr(futures, "wait", lambda these, timeout: waits.append((these, timeout)))
    limiter.wait_at_exit()
    assert waits == [([answers], 2.0)]


@pytest.mark.parametrize(("given", "expected"), [(0, 0.0), (2, 2.0), (0.5, 0.5), (float("inf"), float("inf"))])
def test_limits_that_can_be_used(given: float, expected: float) -> None:
    """Any number from 0 up, and no end at all."""
    assert check_limit(given) == expected


@pytest.mark.parametrize("given", [-1, float("nan"), "10", None])
def test_limits_that_cannot(given: object) -> None:
    """The message says what to write."""
    with pytest.raises(ConfigurationError, match="a number of seconds, 0 or more"):
        check_limit(given)


_NAMES = (
    "MLFLOW_HTTP_REQUEST_TIMEOUT",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER",
)


@pytest.fixture
def nothing_set(state: object, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in (*_NAMES, "MLFLOW_ENABLE_DB_SDK"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    yield
    mlflow.set_tracking_uri(None)


@pytest.mark.usefixtures("nothing_set")
def test_mlflow_reads_what_is_set() -> None:
    """The names are MLflow's own, and what it says it set is what MLflow sees."""
    protection = dspy_cachectl.protect_mlflow()
    assert {name: os.environ[name] for name in _NAMES} == protection.set
    assert [getattr(environment_variables, name).get() for name in _NAMES] == [10, 1, 1, False]
    assert (protection.kept, protection.warnings) == ({}, ())
    assert "set MLFLOW_HTTP_REQUEST_TIMEOUT=10" in str(protection)


@pytest.mark.usefixtures("nothing_set")
def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, and not touched."""
    monkeypatch.setenv(_NAMES[0], "77")
    protection = protect_mlflow(timeout=3, retries=0)
    assert protection.kept == {_NAMES[0]: "77"}
    assert (os.environ[_NAMES[0]], os.environ[_NAMES[1]]) == ("77", "0")
    assert "left MLFLOW_HTTP_REQUEST_TIMEOUT=77" in str(protection)


@pytest.mark.usefixtures("nothing_set")
def test_a_request_of_mlflow_ends() -> None:
    """A server that answers 429 and asks for an hour of patience is given up after the tries that were allowed."""
    protect_mlflow(timeout=1, retries=1)
    with servers.answering(429, Retry_After="3600") as url:
        client = mlflow.MlflowClient(tracking_uri=url)
        with pytest.raises(mlflow.MlflowException, match="429"):
            client.get_run("0" * 32)


@pytest.mark.parametrize("address", ["databricks", "databricks://profile"])
@pytest.mark.usefixtures("nothing_set")
def test_it_says_what_it_cannot_do(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On Databricks the limits do not hold, and the way out is named; without the SDK they do."""
    mlflow.set_tracking_uri(address)
    with caplog.at_level(logging.WARNING, logger="dspy_cachectl"):
        protection = protect_mlflow()
    assert "MLFLOW_ENABLE_DB_SDK=false" in str(protection)
    assert [record.getMessage() for record in caplog.records] == list(protection.warnings)
    monkeypatch.setenv("MLFLOW_ENABLE_DB_SDK", "false")
    assert protect_mlflow().warnings == ()


@pytest.mark.parametrize("arguments", [{"timeout": 0}, {"timeout": 2.5}, {"retries": -1}, {"retries": True}])
@pytest.mark.usefixtures("nothing_set")
def test_a_limit_that_mlflow_could_not_read_is_refused(arguments: dict[str, Any]) -> None:
    """And nothing is set."""
    with pytest.raises(ConfigurationError, match="whole number"):
        protect_mlflow(**arguments)
    assert not any(name in os.environ for name in _NAMES)
