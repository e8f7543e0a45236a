"""Threads that wait for a server, so that a caller waits no longer than it may.

A time-out of a socket is one for each piece of a reply: who is sent a byte now and then waits without end.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar, cast

_T = TypeVar("_T")

_MOST = 8
"""How many commands are under way at once. With each goes a connection, and a server has so many for all."""
_MOST_STUCK = 8
"""How many more threads there may be in the place of those that hang."""


class TooLateError(Exception):
    """There was no reply within the time."""


class _Job:
    """A command, and what became of it."""

    __slots__ = ("action", "done", "error", "is_given_up", "is_over", "result")

    def __init__(self, action: Callable[[], Any]) -> None:
        self.action = action
        self.done = threading.Lock()  # cheaper than an event
        self.done.acquire()
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_over = self.is_given_up = False  # both under the crew's lock

    def do(self) -> None:
        if self.is_given_up:
            return
        try:
            self.result = self.action()
        except BaseException as error:  # noqa: BLE001 - it is raised where the command was given
            self.error = error
        self.done.release()


class _Crew:
    """What the threads hold: not the workers themselves, which end when nobody else holds them."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self.lock = threading.Lock()
        self.threads = 0
        self.under_way = 0
        self.stuck = 0

    def work(self) -> None:
        while (job := self.jobs.get()) is not None:
            job.do()
            with self.lock:
                job.is_over = True
                self.under_way -= 1
                self.stuck -= job.is_given_up
                if self.threads > _MOST + self.stuck:
                    break
            del job
        with self.lock:
            self.threads -= 1

    def end(self) -> None:
        with self.lock:
            for _ in range(self.threads):
                self.jobs.put(None)


class Workers:
    """Daemon threads that are made as they are needed."""

    def __init__(self) -> None:
        self._crew = _Crew()
        self._ending = weakref.finalize(self, self._crew.end)
        self._ending.atexit = False

    def run(self, action: Callable[[], _T], seconds: float) -> _T:
        """Return what an action returns in a thread of its own, or raise what it raises.

        Args:
            action: What is done.
            seconds: How long it may take.

        Raises:
            TooLateError: If it takes longer. It is not begun then, or goes on without anybody.
        """
        job, crew = _Job(action), self._crew
        if not self._has_room(crew):
            return action()
        crew.jobs.put(job)
        if not job.done.acquire(timeout=seconds):
            with crew.lock:
                if not job.is_over:
                    job.is_given_up = True
                    crew.stuck += 1
                    raise TooLateError
        if job.error is not None:
            raise job.error
        return cast(_T, job.result)

    def _has_room(self, crew: _Crew) -> bool:
        """Make a thread where one is needed. Tell whether there is any."""
        with crew.lock:
            crew.under_way += 1
            if crew.threads >= min(crew.under_way, _MOST + min(crew.stuck, _MOST_STUCK)):
                return True
            crew.threads += 1
        try:
            threading.Thread(target=crew.work, name="dspy-cachectl-redis", daemon=True).start()
        except RuntimeError:  # the interpreter is about to end
            with crew.lock:
                crew.threads -= 1
                if crew.threads:
                    return True
                crew.under_way -= 1
                return False
        return True

    def close(self) -> None:
        """Let the threads end when they have done what they do. The next action makes others."""
        self._ending()
        self._crew = _Crew()
        self._ending = weakref.finalize(self, self._crew.end)
        self._ending.atexit = False
