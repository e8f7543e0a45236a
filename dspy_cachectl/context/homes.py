"""Where a phase was opened, and where else it has to be put so that it rules what its block is meant for.

A phase travels with a context. Who opens it in a generator, as a fixture or a dependency is, may be run in a copy of
the context that it is meant for. A web framework runs a generator that is no coroutine in a thread, in a copy of the
context of the request, which waits meanwhile: the phase is put into what waits.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from collections.abc import Callable
from contextvars import Context, ContextVar
from dataclasses import dataclass
from inspect import CO_GENERATOR
from typing import Any

_OF_MAIN = ContextVar("dspy_cachectl_of_main", default=False)
"""True in the main thread's context and in what was copied from it. A bare thread's context begins empty."""
if threading.current_thread() is threading.main_thread():
    _OF_MAIN.set(True)


@dataclass(frozen=True)
class Home:
    """A place that a phase can be opened in.

    Attributes:
        thread: The thread.
        task: The asyncio task that runs there, or None.
    """

    thread: weakref.ref[threading.Thread]
    task: weakref.ref[asyncio.Task[Any]] | None

    @property
    def is_ones_own(self) -> bool:
        """Whether all that runs there belongs together: a thread of a pool serves one after the other."""
        return self.task is not None or self.thread() is threading.main_thread()


WORKS_FOR: ContextVar[Home | None] = ContextVar("dspy_cachectl_works_for", default=None)
"""Where somebody waits for this thread, and what it opens is meant for; None in any thread of its own."""


def home_here() -> Home:
    """Return where this code runs, or who has it run in a thread."""
    home = WORKS_FOR.get()
    if home is not None:
        return home
    task = _task_here()
    return Home(weakref.ref(threading.current_thread()), None if task is None else weakref.ref(task))


def _task_here() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None  # no loop runs in this thread


def is_main_thread() -> bool:
    """Tell whether this is the main thread, in which scripts run, and the cells of a notebook, or works for it."""
    home = WORKS_FOR.get()
    thread = threading.current_thread() if home is None else home.thread()
    return thread is threading.main_thread()


def has_its_own_task(home: Home) -> bool:
    """Tell whether this code, in no phase, runs for a task: one beside that of a phase, or one of a server's.

    A thread of a server's pool works for the task that waits for it, and so does one that was handed a copy of a task's
    context, as `asyncio.to_thread` does, or DSPy's settings: from inside the phase both would have brought it.
    """
    if _loop_of_worker() is not None:
        return True
    if home.thread() is threading.current_thread():
        return _task_here() is not None
    return home.task is not None and _OF_MAIN.get()


def as_here(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a pool with which its threads belong to whom this code does."""
    return {**options, "initializer": _OF_MAIN.set, "initargs": (True,)} if _OF_MAIN.get() else options


def _loop_of_worker() -> Any:
    """Return what identifies the event loop that this thread of anyio's works for; None in any other thread."""
    eventloop = sys.modules.get("anyio._core._eventloop")
    return getattr(getattr(eventloop, "threadlocals", None), "current_token", None)


@dataclass(frozen=True)
class Waiting:
    """The context of whoever waits for this thread, which it works for in a copy.

    Attributes:
        context: The context.
        loop: The event loop that runs it.
    """

    context: Context
    loop: asyncio.AbstractEventLoop

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in that context, where nobody runs in it."""
        if _loop_of_worker() is not None:
            return _in_loop(self.context.run, function, *args)
        if _running_loop() is not self.loop:
            self.loop.call_soon_threadsafe(self.context.run, function, *args)
            return None
        try:
            return self.context.run(function, *args)
        except RuntimeError:
            return None  # this code runs in it, and has seen to it


def waiting_here() -> Waiting | None:
    """Return who waits for a generator that is started in this thread, and goes on without it; None where nobody is."""
    if _loop_of_worker() is None:
        return None
    frame, outlives = sys._getframe(1), False  # noqa: SLF001 - only there it is known who waits
    while frame.f_back is not None and "future" not in frame.f_code.co_varnames:
        outlives = outlives or bool(frame.f_code.co_flags & CO_GENERATOR) or frame.f_code.co_name == "__enter__"
        frame = frame.f_back
    future = frame.f_locals.get("future")
    return _in_loop(_waiting_for, future) if outlives and isinstance(future, asyncio.Future) else None


def _waiting_for(future: asyncio.Future[Any]) -> Waiting | None:
    # In the loop's own thread: whoever asked for the thread waits by now.
    callbacks = getattr(future, "_callbacks", None) or ()
    context = next((context for _, context in callbacks if isinstance(context, Context)), None)
    return None if context is None else Waiting(context, future.get_loop())


def _in_loop(function: Callable[..., Any], *args: Any) -> Any:
    from anyio import from_thread

    return from_thread.run_sync(function, *args)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
