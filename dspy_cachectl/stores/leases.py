"""Leases: which of several processes asks for what all of them want. The others wait, and find it in the store.

A holder lives as long as its lease is renewed. Nobody waits longer for one that does not, but for who has the next
lease, if there is one; and nobody waits for a third holder: an answer that cannot be stored would be asked for by one
after the other.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from dspy_cachectl.boundary.forks import free_after_fork, tell_after_fork
from dspy_cachectl.errors import StoreUnavailableError
from dspy_cachectl.stores.base import Store

LASTS = 10.0
"""After how many seconds without renewal a holder is taken for dead, or stopped."""
_UTMOST = 600.0
"""For how many seconds one waits at most, whatever the holders do: as long as a provider takes at most."""
_MOST_HOLDERS = 2
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1


class Holder(NamedTuple):
    """What is seen of a lease that another has.

    Attributes:
        name: Another holder has another one.
        beat: Changes when the lease is renewed.
    """

    name: bytes
    beat: bytes


class LostLeaseError(StoreUnavailableError):
    """Another has a lease that was taken, or may have it: it was not renewed in time, or its store has forgotten it."""


class Lease(Protocol):
    """The right to ask for something, as far as others can know of it. Every method may raise any error."""

    def take(self) -> Holder | None:
        """Take it, if nobody has it. Return who has it, or None where it is taken."""
        ...

    def renew(self) -> None:
        """Say that whoever took it lives."""
        ...

    def give_back(self) -> None:
        """Let others have it, where it was taken, and let go of what it needed."""
        ...


@runtime_checkable
class LeasingStore(Store, Protocol):
    """A store whose users can tell one another what they ask for. Others do without."""

    def lease(self, name: str) -> Lease | None:
        """Return the lease of a name, which is not taken yet; None where this machine has none."""
        ...


class Turn:
    """One call among those of several processes that want the same.

    Args:
        leases: The leases of what they want, those of fewer processes first, as everybody takes them. One that cannot
            be had is passed over.
        is_settled: Told whether it was waited for; tells whether there is nothing to wait for.
        on_fault: Told why the lease cannot be had, renewed or given back, or that it was lost.
        was_looked: Whether it was just looked for what settles it, and nothing found: then a lease is taken at once.
    """

    def __init__(
        self,
        leases: Sequence[Lease],
        is_settled: Callable[[bool], bool],
        on_fault: Callable[[Exception], None],
        *,
        was_looked: bool = False,
    ) -> None:
        self._leases = leases
        self._tried = 0
        self._is_settled = is_settled
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self._has_ended = False
        self._was_looked = was_looked

    def pauses(self) -> Iterator[float]:
        """Yield how many seconds to wait before one goes on, again and again; ends where one is to ask oneself."""
        begun = seen = time.monotonic()
        pause, tried, last = _FIRST_PAUSE, self._tried, None
        holders: set[bytes] = set()
        while not self._looks(waited=pause > _FIRST_PAUSE):
            holder = self._take()
            if holder is None:
                return
            now = time.monotonic()
            if self._tried != tried:
                tried = self._tried
                holders.clear()  # they were another lease's
            if holder != last:
                last, seen = holder, now
                holders.add(holder.name)
            if now - begun > _UTMOST or len(holders) > _MOST_HOLDERS:
                return
            if now - seen > LASTS:
                self._pass_over()
            else:
                yield pause
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _looks(self, *, waited: bool) -> bool:
        """Look, unless that was done already. Tell whether there is nothing to wait for."""
        was_looked, self._was_looked = self._was_looked, False
        return not was_looked and self._is_settled(waited)

    def _pass_over(self) -> None:
        """Do without a lease whose holder is stopped: those who waited for it still know of one another by the next."""
        with self._lock:
            self._tried += 1

    def _take(self) -> Holder | None:
        # Whoever was cancelled meanwhile has ended already.
        with self._lock:
            while self._tried < len(self._leases) and not self._has_ended:
                lease = self._leases[self._tried]
                try:
                    holder = lease.take()
                except Exception as error:  # noqa: BLE001 - without it those ask that it would keep waiting
                    self._on_fault(error)
                else:
                    if holder is not None:
                        return holder
                    _RENEWING.add(lease, self._on_fault)
                self._tried += 1
            return None

    def end(self) -> None:
        """Let others have their turn. Never raises."""
        with self._lock:
            self._has_ended = True
            for lease in reversed(self._leases):
                _RENEWING.remove(lease)
                try:
                    lease.give_back()
                except Exception as error:  # noqa: BLE001 - it expires
                    self._on_fault(error)


class _Renewing:
    """Renews what this process holds, in one thread, which ends when nothing is held."""

    def __init__(self) -> None:
        self._lock = free_after_fork(threading.Lock())
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Hold nothing in the child."""
        self._held: dict[Lease, Callable[[Exception], None]] = {}
        self._is_running = False

    def add(self, lease: Lease, on_fault: Callable[[Exception], None]) -> None:
        with self._lock:
            self._held[lease] = on_fault
            if self._is_running:
                return
            with contextlib.suppress(RuntimeError):  # the interpreter is about to end
                threading.Thread(target=self._run, name="dspy-cachectl-leases", daemon=True).start()
                self._is_running = True

    def remove(self, lease: Lease) -> None:
        with self._lock:
            self._held.pop(lease, None)

    def _run(self) -> None:
        while True:
            time.sleep(LASTS / 3)
            with self._lock:
                held = list(self._held.items())
                self._is_running = bool(held)
            if not held:
                return
            for lease, on_fault in held:
                try:
                    lease.renew()
                except LostLeaseError:
                    pass  # who ends it is told, in its own thread
                except Exception as error:  # noqa: BLE001 - it expires, and another asks too
                    on_fault(error)


_RENEWING = _Renewing()
