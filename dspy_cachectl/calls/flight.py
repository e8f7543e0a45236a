"""Single flight: identical calls that are in the air at once share one answer.

A leader asks, the others wait. Three rules keep it from deadlock:

- A waiting coroutine holds no thread, so DSPy's default executor stays free for the leader.
- A thread waits only for a leader that is a thread. A leader that is a coroutine may need the very thread that
  would wait for it.
- A call on an event loop's own thread, and a call made from within its own leader, never wait.

A leader then waits for its turn among processes, where the store lets them know of one another (see `stores.leases`).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

from dspy_cachectl.accounting.ledger import Tally
from dspy_cachectl.boundary.forks import tell_after_fork
from dspy_cachectl.calls.cache import ManagedCache
from dspy_cachectl.calls.call import Asking, Call
from dspy_cachectl.context.process import state
from dspy_cachectl.errors import CachectlError
from dspy_cachectl.stores.leases import LostLeaseError, Turn

_HERE = str(Path(__file__).parent)
_THREADS = 4

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
        # Not the loop's own, which leaders need, and which those who wait for a store would fill.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="dspy-cachectl-flight")

    def run(
        self, key: str, ask: Callable[[A | None], T], handed: Callable[[], A | None], turn: Turn | None = None
    ) -> T:
        """Ask, or wait for whoever is asking the same.

        Args:
            key: What makes two calls the same.
            ask: Asks the provider. It is given what a leader handed over, or None.
            handed: After `ask` returned: what to hand to those who wait; None if there is nothing to hand.
            turn: What a leader waits for before it asks; None for nothing.

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
        with self._leading(flight, handed, turn):
            for pause in () if turn is None else turn.pauses():
                if _on_event_loop():
                    break
                time.sleep(pause)
            return ask(None)

    async def run_async(
        self,
        key: str,
        ask: Callable[[A | None], Awaitable[T]],
        handed: Callable[[], A | None],
        turn: Turn | None = None,
    ) -> T:
        """Do the same as `run` without holding a thread."""
        flight, leads = self._join(key, threaded=False)
        while not leads:
            if flight is None:
                return await ask(None)
            answer = await asyncio.wrap_future(flight.ended)
            if not flight.failed:
                return await ask(answer)
            flight, leads = self._join(key, threaded=False, heir_of=flight)
        with self._leading(flight, handed, turn):
            if turn is not None:
                await self._wait_for(turn)
            return await ask(None)

    async def _wait_for(self, turn: Turn) -> None:
        """Wait for a turn: for the store in threads of one's own, and for others in none."""
        pauses, loop, context = turn.pauses(), asyncio.get_running_loop(), contextvars.copy_context()
        look = partial(next, pauses, None)
        with contextlib.suppress(RuntimeError):  # the interpreter is about to end
            while (pause := await loop.run_in_executor(self._threads, context.run, look)) is not None:
                await asyncio.sleep(pause)

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
    def _leading(self, flight: _Flight[A] | None, handed: Callable[[], A | None], turn: Turn | None) -> Iterator[None]:
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
            if turn is not None:
                turn.end()
            with self._lock:
                # Whoever was forked while it led leads no flight of this process.
                self._flights.pop((flight.key, flight.threaded), None)
            flight.ended.set_result(answer)


def turn_of(call: Call, cache: ManagedCache | None, *, by_thread: bool = True) -> Turn | None:
    """Return the turn of a call among the processes that ask the same; None where they cannot know of one another.

    Args:
        call: The call.
        cache: The cache in place, or None.
        by_thread: Whether a thread leads it, which must not wait for a coroutine in another process either.
    """
    # Calls that are made within others are left out: two of them might wait for each other.
    asked, key = call.asked, call.key
    # A thread has looked already, on its way here (see `find_at_hand`). It looks once more when its turn has come.
    was_looked, call.was_looked = call.was_looked, False
    if cache is None or key is None or asked.ruling.cassette is not None or call.parent is not None:
        return None
    leases = cache.tiers.leases(key if by_thread else f"coroutine:{key}") if asked.decision.stores else []
    if not leases:
        return None
    was_looked = was_looked or (by_thread and cache.tiers.glances)
    return Turn(leases, partial(_is_settled, call, cache, key), partial(_note_fault, call), was_looked=was_looked)


def _note_fault(call: Call, error: Exception) -> None:
    if isinstance(error, LostLeaseError):
        call.tally.add(Tally(failed_writes=1))
        state.say_once("lease:lost", str(error))
        return
    if isinstance(error, OSError):
        return  # of a full disk, or one that cannot be written, the store says so when the answer is to be kept
    state.say_once(
        f"lease:{type(error).__name__}",
        f"processes that want the same answer cannot know of one another, and each may ask for it: {error}",
    )


def _is_settled(call: Call, cache: ManagedCache, key: str, waited: bool) -> bool:
    """Look for what answers a call. Tell whether it is there."""
    call.waited = waited
    with Asking(call, None):  # whose faults these are
        data = cache.tiers.get(key)
    found = data is not None and cache.serving(call, key, data) is not None
    call.found_bytes = data if found else None
    return found


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
