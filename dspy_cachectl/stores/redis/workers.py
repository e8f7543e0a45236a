"""Threads that wait for a server, so that a caller waits no longer than it may.

A time-out of a socket is one for each piece of a reply: who is sent a byte now and then waits without end.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar, cast

_T = TypeVar("_T")

_MOST = 8
"""How many commands are under way at once. With each goes a connection, and a server has so many for all."""
_MOST_STUCK = 8
"""How many more threads there may be in the place of those that hang."""


_FORGETS = 0.9
"""Which part of the time that this process was late is remembered from one command to the next."""
_LATE = 0.02
"""From how many seconds on a process is late: threads of an idle machine are woken in a thousandth of it."""
_LATER = 4.0
"""So many times as long as it is late itself it waits longer: for each time that a command changes threads."""
_UTMOST = 3.0
"""So many times as long as a command may take it waits longer at most."""


class TooLateError(Exception):
    """There was no reply within the time.

    Attributes:
        begun: Whether it was asked for; else the commands of this process have waited for one another.
    """

    def __init__(self, *, begun: bool) -> None:
        super().__init__()
        self.begun = begun


@dataclass
class Times:
    """When a command was begun and ended in a worker's thread, by the monotonic clock; 0 where it was not."""

    begun: float = 0.0
    ended: float = 0.0


class _Job:
    """A command, and what became of it."""

    __slots__ = ("action", "done", "error", "is_given_up", "is_over", "result", "times")

    def __init__(self, action: Callable[[], Any], times: Times) -> None:
        self.action = action
        self.times = times
        self.done = threading.Lock()  # cheaper than an event
        self.done.acquire()
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_over = self.is_given_up = False  # both under the crew's lock

    def do(self) -> None:
        if self.is_given_up:
            return
        self.times.begun = time.monotonic()
        try:
            self.result = self.action()
        except BaseException as error:  # noqa: BLE001 - it is raised where the command was given
            self.error = error
        self.times.ended = time.monotonic()
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
    """Daemon threads that are made as they are needed.

    Attributes:
        late: For how many seconds this process lets threads wait that could go on, at worst and of late: for the
            processor, or the interpreter's lock. No server is to blame for that.
    """

    def __init__(self) -> None:
        self.late = 0.0
        self._crew = _Crew()
        self._ending = weakref.finalize(self, self._crew.end)
        self._ending.atexit = False

    def run(self, action: Callable[[], _T], seconds: float, times: Times | None = None) -> _T:
        """Return what an action returns in a thread of its own, or raise what it raises.

        Args:
            action: What is done.
            seconds: How long it may take, beyond what this process itself is late.
            times: Told when it was begun and ended.

        Raises:
            TooLateError: If it takes longer. It is not begun then, or goes on without anybody.
        """
        job, crew = _Job(action, times or Times()), self._crew
        if not self._has_room(crew):
            return action()
        crew.jobs.put(job)
        if self._waits(job, seconds):
            self._note_late(time.monotonic() - job.times.ended)
        else:
            with crew.lock:
                if not job.is_over:
                    job.is_given_up = True
                    crew.stuck += 1
                    raise TooLateError(begun=bool(job.times.begun))
        if job.error is not None:
            raise job.error
        return cast(_T, job.result)

    def _waits(self, job: _Job, seconds: float) -> bool:
        """Tell whether a job ended in time."""
        until = time.monotonic() + seconds
        if job.done.acquire(timeout=seconds):
            return True
        self._note_late(time.monotonic() - until)
        longer = min(_LATER * self.late, _UTMOST * seconds) if self.late > _LATE else 0.0
        return longer > 0.0 and job.done.acquire(timeout=longer)

    def _note_late(self, seconds: float) -> None:
        self.late = max(seconds, _FORGETS * self.late)

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
