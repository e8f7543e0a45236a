"""Coroutines of programs and metrics, run in the threads of `dspy.Evaluate`: one event loop for each."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable
from types import TracebackType
from typing import Any


class Loops:
    """The event loops of an evaluation, each of the thread that first needed it. Left, it closes them."""

    def __init__(self) -> None:
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
