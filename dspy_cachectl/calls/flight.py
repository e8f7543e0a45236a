"""Single flight: identical calls that are in the air at once share one answer.

A leader asks, the others wait. Three rules keep it from deadlock:

- A waiting coroutine holds no thread, so DSPy's default executor stays free for the leader.
- A thread waits only for a leader that is a thread. A leader that is a coroutine may need the very thread that
  would wait for it.
- A call on an event loop's own thread, and a call made from within its own leader, never wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

from dspy_cachectl.boundary.forks import tell_after_fork
from dspy_cachectl.errors import CachectlError

_HERE = str(Path(__file__).parent)

A = TypeVar("A")
T = TypeVar("T")


@dataclass(eq=False)
class _Flight(Generic[A]):
    """One call in the air.

    Attributes:
        key: What makes two calls the same.
        threaded: Whether a thread leads it. Flights of both kinds are apart, because threads wait for threads only.
        failures: How often the provider failed, for those whose heir it is as well.
        ended: Done when its leader is: with what that hands over, or None where there is nothing to hand over.
        failed: Whether its leader came back without an answer.
        heirs: The flights that those who waited for it went on to, by whether a thread leads them.
    """

    key: str
    threaded: bool
    failures: int = 0
    ended: Future[A | None] = field(default_factory=Future)
    failed: bool = False
    heirs: dict[bool, _Flight[A]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A future that runs cannot be cancelled: a task that is cancelled while it waits would take it from all others.
        self.ended.set_running_or_notify_cancel()


class Flights(Generic[A]):
    """The calls in the air, by key. `A` is what a leader hands to those who wait."""

    def __init__(self) -> None:
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Begin with none: nobody leads, in a child, what a thread of its parent leads."""
        self._lock = threading.Lock()
        self._flights: dict[tuple[str, bool], _Flight[A]] = {}

    def run(self, key: str, ask: Callable[[A | None], T], handed: Callable[[], A | None]) -> T:
        """Ask, or wait for whoever is asking the same.

        Args:
            key: What makes two calls the same.
            ask: Asks the provider. It is given what a leader handed over, or None.
            handed: After `ask` returned: what to hand to those who wait; None if there is nothing to hand.

        Returns:
            What `ask` returned.
        """
        flight, leads = self._join(key, threaded=True)
        while not leads:
            if flight is None or _on_event_loop():
                return ask(None)
            answer = flight.ended.result()
            if not flight.failed:
                return ask(answer)
            flight, leads = self._join(key, threaded=True, heir_of=flight)
        with self._leading(flight, handed):
            return ask(None)

    async def run_async(self, key: str, ask: Callable[[A | None], Awaitable[T]], handed: Callable[[], A | None]) -> T:
        """Do the same as `run` without holding a thread."""
        flight, leads = self._join(key, threaded=False)
        while not leads:
            if flight is None:
                return await ask(None)
            answer = await asyncio.wrap_future(flight.ended)
            if not flight.failed:
                return await ask(answer)
            flight, leads = self._join(key, threaded=False, heir_of=flight)
        with self._leading(flight, handed):
            return await ask(None)

    def _join(self, key: str, *, threaded: bool, heir_of: _Flight[A] | None = None) -> tuple[_Flight[A] | None, bool]:
        """Return a flight, and whether to lead it rather than wait for it; no flight to go alone.

        When a leader fails, everybody who waited for it comes back here: the first leads its heir, the others wait for
        that. After a second failure nobody waits for a third: each asks for itself.
        """
        if heir_of is not None and heir_of.failures >= 2:
            return None, False
        heirs = {} if heir_of is None else heir_of.heirs
        with self._lock:
            for led_by_thread in (True,) if threaded else (True, False):
                # Who comes back late finds the heir of its flight here, also when that has ended.
                flight = heirs.get(led_by_thread) or self._flights.get((key, led_by_thread))
                if flight is not None:
                    return heirs.setdefault(led_by_thread, flight), False
            flight = _Flight(key, threaded, failures=0 if heir_of is None else heir_of.failures)
            self._flights[key, threaded] = heirs[threaded] = flight
            return flight, True

    @contextlib.contextmanager
    def _leading(self, flight: _Flight[A] | None, handed: Callable[[], A | None]) -> Iterator[None]:
        assert flight is not None  # noqa: S101 - for the type checker
        answer = None
        try:
            yield
            answer = handed()
        except BaseException as error:
            # A leader that was cancelled says nothing of the provider.
            flight.failures += isinstance(error, Exception)
            flight.failed = True
            raise
        finally:
            with self._lock:
                # Whoever was forked while it led leads no flight of this process.
                self._flights.pop((flight.key, flight.threaded), None)
            flight.ended.set_result(answer)


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def frames_of_others(error: BaseException) -> TracebackType | None:
    """Return an error's traceback without this package's frames, which a call has more of or fewer.

    An agent is told of what its tool raised, and asks with it: that is the same in every phase. What this package
    itself raises keeps them.
    """
    traceback = error.__traceback__
    if isinstance(error, CachectlError):
        return traceback
    frames = []
    while traceback is not None:
        if not traceback.tb_frame.f_code.co_filename.startswith(_HERE):
            frames.append(traceback)
        traceback = traceback.tb_next
    kept: TracebackType | None = None
    for one in reversed(frames):
        kept = TracebackType(kept, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return kept
