"""The guard: a limit on anything, and a circuit breaker."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.tracking.deadline import CircuitOpenError, DeadlineError, Guard, check_limit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a hanging function waits for; opened at the end, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


def test_a_result_and_an_error_reach_the_caller() -> None:
    """What a function returns or raises is what `run` returns or raises."""
    guard = Guard()

    def broken() -> None:
        raise ZeroDivisionError("as it was raised")

    assert guard.run(lambda: 42, limit=60, target="a") == 42
    with pytest.raises(ZeroDivisionError, match="as it was raised"):
        guard.run(broken, limit=60, target="a")
    assert guard.cooling("a") == 0


def test_the_thread_is_a_daemon() -> None:
    """Nothing that hangs keeps the interpreter from ending."""
    assert Guard().run(lambda: threading.current_thread().daemon, limit=60, target="a") is True


def test_a_time_out_opens_the_circuit_of_its_target_only(gate: threading.Event) -> None:
    """After a time-out nothing is started for that target until it has cooled down."""
    clock, started = Clock(), []
    guard = Guard(cool_down=300, clock=clock)
    with pytest.raises(DeadlineError, match=r"a did not answer within 0\.01 s"):
        guard.run(gate.wait, limit=0.01, target="a")

    with pytest.raises(CircuitOpenError, match="asked again in 300 s"):
        guard.run(lambda: started.append("too early"), limit=60, target="a")
    assert guard.run(lambda: "other", limit=60, target="b") == "other"
    clock.now = 301
    assert guard.run(lambda: "again", limit=60, target="a") == "again"
    assert started == []


def test_a_closed_circuit_is_tried_again(gate: threading.Event) -> None:
    """Who asks for another try gets one."""
    guard = Guard()
    with pytest.raises(DeadlineError):
        guard.run(gate.wait, limit=0.01, target="a")
    guard.close_circuit("a")
    assert guard.run(lambda: 1, limit=60, target="a") == 1


def test_no_time_starts_nothing_and_blames_nobody() -> None:
    """A limit of 0 is not the target's fault."""
    guard, started = Guard(), []
    with pytest.raises(DeadlineError):
        guard.run(lambda: started.append(1), limit=0, target="a")
    assert started == []
    assert guard.cooling("a") == 0


def test_exit_waits_for_what_can_still_end_and_for_nothing_else(gate: threading.Event) -> None:
    """Exit gives a push under way its chance, and none to one whose server is known not to answer."""
    guard = Guard(exit_wait=0.01)
    flying, hung = threading.Event(), threading.Event()
    waits: list[str] = []

    def fly(name: str, began: threading.Event) -> None:
        began.set()
        gate.wait()

    caller = threading.Thread(
        target=lambda: guard.run(lambda: fly("a", flying), limit=60, target="answers"), daemon=True
    )
    caller.start()
    with pytest.raises(DeadlineError):
        guard.run(lambda: fly("b", hung), limit=0.01, target="hangs")
    assert flying.wait(60)
    for flight in guard._flights:
        flight.ended.wait = lambda timeout, name=flight.target: waits.append(name) is None  # type: ignore[method-assign]
    guard.wait_at_exit()
    assert waits == ["answers"]


@pytest.mark.parametrize(("given", "expected"), [(0, 0.0), (2, 2.0), (0.5, 0.5), (float("inf"), float("inf"))])
def test_limits_that_can_be_used(given: float, expected: float) -> None:
    """Any number from 0 up, and no end at all."""
    assert check_limit(given) == expected


@pytest.mark.parametrize("given", [-1, float("nan"), "10", None])
def test_limits_that_cannot(given: object) -> None:
    """The message says what to write."""
    with pytest.raises(ConfigurationError, match="a number of seconds, 0 or more"):
        check_limit(given)
