"""Coroutines of programs and metrics, which the threads of `dspy.Evaluate` wait for.

Each thread has an event loop for them; where an evaluation is awaited, they run on the loop of whoever awaits it, which
is that of the sessions and locks which they use.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable
from concurrent import futures
from types import TracebackType
from typing import Any

from dspy_cachectl.context.homes import WORKS_FOR


class Awaiting:
    """Whoever awaits an evaluation.

    Args:
        loop: The event loop that they run on.

    Attributes:
        is_ending: Whether they have been cancelled: no question is begun, and what is in the air is waited for.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.is_ending = False
        self._loop = loop
        self._in_air: set[futures.Future[Any]] = set()
        self._left = threading.Event()

    def result(self, value: Awaitable[Any]) -> Any:
        """Return what comes of an awaitable on their loop, in the context of this thread, which waits.

        Raises:
            BaseException: Whatever the awaitable raises.
        """
        awaited = _awaited_by_nobody(value)
        if self._left.is_set():
            awaited.close()
            raise asyncio.CancelledError
        future = asyncio.run_coroutine_threadsafe(awaited, self._loop)
        self._in_air.add(future)
        if self._left.is_set():  # in between, by one that has not seen this
            future.cancel()
        try:
            return future.result()
        except futures.CancelledError:
            # That of asyncio is no `Exception`, which would be a failure of the program.
            raise asyncio.CancelledError from None
        finally:
            self._in_air.discard(future)

    def leave(self) -> None:
        """End what is in the air as well. It is called on their loop."""
        self.is_ending = True
        self._left.set()
        for future in list(self._in_air):
            future.cancel()


AWAITING: contextvars.ContextVar[Awaiting | None] = contextvars.ContextVar("dspy_cachectl_awaiting", default=None)
"""Who awaits the evaluation that is made here."""


class Loops:
    """The event loops of an evaluation, each of the thread that first needed it. Left, it closes them.

    Attributes:
        awaiting: Who awaits the evaluation; None where a thread waits for it.
    """

    def __init__(self) -> None:
        self.awaiting = AWAITING.get()
        self._loops: dict[threading.Thread, asyncio.AbstractEventLoop] = {}
        self._lock = threading.Lock()
        self._is_over = False

    def __enter__(self) -> Loops:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._is_over = True
            # One that runs is that of a question which nobody waits for any more, and is closed when it is done.
            idle = [self._loops.pop(thread) for thread, loop in list(self._loops.items()) if not loop.is_running()]
        _close(idle)

    def result(self, value: Any) -> Any:
        """Return a value; where it is awaitable, what comes of it. The context is that of the caller.

        Raises:
            BaseException: Whatever the awaitable raises.
        """
        if not inspect.isawaitable(value):
            return value
        if self.awaiting is not None:
            return self.awaiting.result(value)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._run(value)
        # This thread's loop runs already, and waits for this very code.
        found: list[Any] = []
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: found.append(context.run(_outcome, self._run, value)))
        thread.start()
        thread.join()
        is_error, outcome = found[0]
        if is_error:
            raise outcome
        return outcome

    def _run(self, value: Awaitable[Any]) -> Any:
        loop = self._loop_here()
        try:
            return loop.run_until_complete(_awaited(value))
        finally:
            with self._lock:
                is_late = self._is_over and self._loops.pop(threading.current_thread(), None) is not None
            if is_late:
                _close([loop])

    def _loop_here(self) -> asyncio.AbstractEventLoop:
        me = threading.current_thread()
        with self._lock:
            # A question with a timeout has a thread of its own, so those that are gone are not kept until the end.
            gone = [self._loops.pop(thread) for thread in list(self._loops) if not thread.is_alive()]
            loop = self._loops.get(me)
            if loop is None:
                loop = self._loops[me] = asyncio.new_event_loop()
        _close(gone)
        return loop


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


async def _awaited_by_nobody(value: Awaitable[Any]) -> Any:
    # What evaluates in there blocks the loop, and cannot use it.
    AWAITING.set(None)
    WORKS_FOR.set(None)
    return await value


def _outcome(run: Any, value: Awaitable[Any]) -> tuple[bool, Any]:
    try:
        return False, run(value)
    except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
        return True, error


def _close(loops: list[asyncio.AbstractEventLoop]) -> None:
    """Close loops that do not run, in a thread where none does: what is left in them is cancelled first."""
    if loops:
        thread = threading.Thread(target=_close_here, args=(loops,))
        thread.start()
        thread.join()


def _close_here(loops: list[asyncio.AbstractEventLoop]) -> None:
    for loop in loops:
        try:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
