"""Single flight: identical calls that are in the air at once share one answer.

A leader asks, the others wait. Three rules keep it from deadlock:

- A waiting coroutine holds no thread, so DSPy's default executor stays free for the leader.
- A thread waits only for a leader that is a thread. A leader that is a coroutine may need the very thread that
  would wait for it.
- A call on an event loop's own thread, and a call made from within its own leader, never wait.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

A = TypeVar("A")
T = TypeVar("T")

_Word = Literal["answer", "lead", "alone"]
_Slot = tuple[str, bool]
"""A key, and whether a thread leads. They are apart because threads wait for threads only."""


@dataclass(eq=False)
class _Waiter(Generic[A]):
    """Somebody who waits, woken once with a word. `slot` is where it leads, if it comes to lead."""

    slot: _Slot
    loop: asyncio.AbstractEventLoop | None = None
    woken: threading.Event = field(default_factory=threading.Event)
    future: asyncio.Future[None] | None = None
    word: _Word | None = None
    answer: A | None = None

    def wake(self, word: _Word, answer: A | None = None) -> None:
        self.word, self.answer = word, answer
        if self.loop is None or self.future is None:
            self.woken.set()
            return
        try:
            self.loop.call_soon_threadsafe(_resolve, self.future)
        except RuntimeError:
            # Its loop was closed under it: nobody is waiting any more. A lead must not be lost with it.
            self.word = None
            raise


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@dataclass(eq=False)
class _Flight(Generic[A]):
    """One call in the air."""

    waiters: deque[_Waiter[A]] = field(default_factory=deque)
    failures: int = 0


class Flights(Generic[A]):
    """The calls in the air, by key. `A` is what a leader hands to those who wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[_Slot, _Flight[A]] = {}

    def run(self, key: str, ask: Callable[[A | None], T], handed: Callable[[], A | None]) -> T:
        """Ask, or wait for whoever is asking the same.

        Args:
            key: What makes two calls the same.
            ask: Asks the provider. It is given what a leader handed over, or None.
            handed: After `ask` returned: what to hand to those who wait; None if there is nothing to hand.

        Returns:
            What `ask` returned.
        """
        slot, waiter = self._join(key, threaded=True, waits=not _on_event_loop())
        if waiter is not None:
            try:
                waiter.woken.wait()
            except BaseException:
                self._leave(waiter)
                raise
        if waiter is not None:
            if waiter.word != "lead":
                return ask(waiter.answer)
            slot = waiter.slot
        if slot is None:
            return ask(None)
        try:
            result = ask(None)
        except BaseException as error:
            self._failed(slot, counts=isinstance(error, Exception))
            raise
        self._landed(slot, handed())
        return result

    async def run_async(self, key: str, ask: Callable[[A | None], Awaitable[T]], handed: Callable[[], A | None]) -> T:
        """Do the same as `run` without holding a thread."""
        slot, waiter = self._join(key, threaded=False, waits=True)
        if waiter is not None and waiter.future is not None:
            try:
                await waiter.future
            except BaseException:
                self._leave(waiter)
                raise
        if waiter is not None:
            if waiter.word != "lead":
                return await ask(waiter.answer)
            slot = waiter.slot
        if slot is None:
            return await ask(None)
        try:
            result = await ask(None)
        except BaseException as error:
            self._failed(slot, counts=isinstance(error, Exception))
            raise
        self._landed(slot, handed())
        return result

    def _join(self, key: str, *, threaded: bool, waits: bool) -> tuple[_Slot | None, _Waiter[A] | None]:
        """Return the slot to lead, or the slot and a place to wait in; (None, None) to go alone."""
        with self._lock:
            for slot in ((key, True),) if threaded else ((key, True), (key, False)):
                flight = self._flights.get(slot)
                if flight is None:
                    continue
                if not waits:
                    return None, None
                waiter: _Waiter[A] = _Waiter(slot)
                if not threaded:
                    waiter.loop = asyncio.get_running_loop()
                    waiter.future = waiter.loop.create_future()
                flight.waiters.append(waiter)
                return slot, waiter
            slot = (key, threaded)
            self._flights[slot] = _Flight()
            return slot, None

    def _landed(self, slot: _Slot, answer: A | None) -> None:
        with self._lock:
            flight = self._flights.pop(slot)
        word: _Word = "alone" if answer is None else "answer"
        for waiter in flight.waiters:
            _wake(waiter, word, answer)

    def _failed(self, slot: _Slot, *, counts: bool) -> None:
        """Let one waiter lead. After a second failure nobody waits for a third: each asks for itself."""
        with self._lock:
            flight = self._flights[slot]
            flight.failures += counts
            if flight.failures < 2 and self._promote(slot, flight):
                return
            del self._flights[slot]
        for waiter in flight.waiters:
            _wake(waiter, "alone")

    def _promote(self, slot: _Slot, flight: _Flight[A]) -> bool:
        # Threads first: while one leads, everybody may wait.
        threads = [waiter for waiter in flight.waiters if waiter.loop is None]
        coroutines = [waiter for waiter in flight.waiters if waiter.loop is not None]
        for index, waiter in enumerate(threads):
            flight.waiters = deque([*threads[index + 1 :], *coroutines])
            if _wake(waiter, "lead"):
                return True
        flight.waiters = deque(coroutines)
        key = slot[0]
        other = self._flights.get((key, False))
        if slot[1] and other is not None:
            # A coroutine leads the same call already.
            for waiter in coroutines:
                waiter.slot = (key, False)
            other.waiters.extend(coroutines)
            flight.waiters.clear()
            return False
        while flight.waiters:
            waiter = flight.waiters.popleft()
            waiter.slot = (key, False)
            if _wake(waiter, "lead"):
                for left in flight.waiters:
                    left.slot = (key, False)
                del self._flights[slot]
                self._flights[key, False] = flight
                return True
        return False

    def _leave(self, waiter: _Waiter[A]) -> None:
        """Somebody stops waiting: a cancelled task, an interrupted thread. A lead it was given passes on."""
        with self._lock:
            flight = self._flights.get(waiter.slot)
            if flight is not None and waiter in flight.waiters:
                flight.waiters.remove(waiter)
                return
        if waiter.word == "lead":
            self._failed(waiter.slot, counts=False)


def _wake(waiter: _Waiter[A], word: _Word, answer: A | None = None) -> bool:
    try:
        waiter.wake(word, answer)
    except RuntimeError:
        return False
    return True


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
