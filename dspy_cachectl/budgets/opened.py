"""A budget while it is open: what is spent of it, what the requests in the air may come to, and who waits for them.

The counts are a record of a register, which threads, processes or machines share. In it each process writes what it
spent and holds itself, as absolute numbers: what could not be written is so with the next change, and what a server
forgets of it comes back, with what the process has seen of others.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from dspy_cachectl.boundary.forks import tell_after_fork
from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.budget import AMOUNTS, Budget
from dspy_cachectl.budgets.counts import Amounts, Counts, DoesNotFitError, Need
from dspy_cachectl.budgets.saying import Warned, spent_of, told
from dspy_cachectl.budgets.sharing import FileOfProcess, NotShared, OfStore, handed_over, has_ended, new_part
from dspy_cachectl.errors import BudgetExceededError, StoreError
from dspy_cachectl.stores.registers.base import MemoryRegister, Record, Register
from dspy_cachectl.stores.registers.file import FileRegister

_LITTLE = 1e-9
"""What sums of numbers may be off by."""

logger = logger_for("dspy_cachectl")


class OpenBudget:
    """A budget that is open in this process. Thread-safe; a forked child has a part of its own in the same counts.

    Args:
        budget: What it allows.
        whose: Whose it is, as people would say it.
        register: Where it is counted; None: for this process alone.
        record: The name of its record there; None: one that nobody else has.

    Attributes:
        budget: What it allows.
        whose: Whose it is.
        roles: The budgets of roles within it.
        failed: How many requests of this process arrived and failed.
        why: Why a call was not made last, in this process; or "".
        trouble: What was wrong with its counter last, in this process; or "".
        said: The setting that it is of; "" where it is of a phase.
    """

    def __init__(
        self, budget: Budget, whose: str, *, register: Register | None = None, record: str | None = None
    ) -> None:
        self.budget, self.whose = budget, whose
        self.register: Register = register or MemoryRegister()
        self.record = record or uuid.uuid4().hex
        self.limits = {kind: limit for kind, limit in budget.limits.items() if kind in AMOUNTS}
        self.roles = {
            role: OpenBudget(
                replace(of_role, prices={**budget.prices, **of_role.prices}, strict=budget.strict or of_role.strict),
                f"role {role!r} in {whose}",
                register=self.register,
                record=f"{self.record}/{role}",
            )
            for role, of_role in budget.roles.items()
        }
        self.began = time.monotonic()
        self.failed = 0
        self.why = self.trouble = self.said = ""
        self._others = Counts()
        self._warned = Warned(whose)
        self._version = 0
        self._past = 0
        self._begin()
        self.look()
        self._past = self._others.refused
        tell_after_fork(self)
        LIVE.add(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._own = Counts()
        self._known: Record = {}
        self._me = new_part()
        self._waiting: deque[Future[None]] = deque()

    def after_fork(self) -> None:
        """Begin in the child with a part of its own, in which nothing is spent yet."""
        self._begin()
        if not self.register.is_shared:
            self._count_in(NotShared())

    def share(self) -> None:
        """Let other processes have a part in it, those that it is handed over to."""
        with self._lock:
            if isinstance(self.register, MemoryRegister):
                try:
                    self._count_in(handed_over(self.register, self))
                except StoreError as error:
                    logger.warning("the budget of %s cannot be handed over to other processes: %s", self.whose, error)

    def _count_in(self, register: Register) -> None:
        self.register = register
        for one in self.roles.values():
            one.register = register

    def __copy__(self) -> OpenBudget:
        return self

    def __deepcopy__(self, memo: object) -> OpenBudget:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        self.share()
        path = str(self.register.path) if isinstance(self.register, FileRegister) else ""
        where = path if path or isinstance(self.register, OfStore) else None
        return _arrived, (self.budget, self.whose, self.record, where, time.monotonic() - self.began)

    @property
    def spent(self) -> dict[str, float]:
        """What is spent of all that is counted, as far as this process knows."""
        with self._lock:
            return {kind: self._spent(kind) for kind in AMOUNTS}

    def for_role(self, role: str | None) -> tuple[OpenBudget, ...]:
        """Return the budgets in it that a call of a role draws on."""
        of_role = self.roles.get(role) if role is not None else None
        return (self,) if of_role is None else (self, of_role)

    def take(self, need: Need) -> int | None:
        """Take what a request needs. Return None where it is taken, or else what `wait` is told.

        Raises:
            BudgetExceededError: If it does not fit, whatever becomes of what is in the air.
        """
        with self._lock:
            self._check_time()
            before, fits = self._own, False

            def change(record: Record) -> Record:
                nonlocal fits
                self._own = replace(before, spent=dict(before.spent), held=dict(before.held))
                self._read(record)
                fits = self._fits(need)
                if fits:
                    self._own.add(need.sure, need.most)
                return self._write(record)

            try:
                self.register.change(self.record, change)
            except DoesNotFitError as error:
                self._own = before
                raise self.refuse(str(error)) from None
            except StoreError as error:
                self._own = before
                self.trouble = f"its counter cannot be reached, in {self.register.place}: {error}"
                raise self.refuse(self.trouble) from error
            if not fits:
                return self._version
            self._warned.look(self.spent, self.limits)
            return None

    def check(self, need: Need) -> None:
        """Refuse a request, before it waits for anything else, that does not fit as far as this process knows.

        Raises:
            BudgetExceededError: If it does not.
        """
        with self._lock:
            self._check_time()
            if self.why_not(need):
                self.look()  # what others gave back may make room
            if why := self.why_not(need):
                raise self.refuse(why)

    def why_not(self, need: Need) -> str:
        """Say why a request does not fit, as far as this process knows, whatever becomes of the others; or nothing."""
        try:
            with self._lock:
                self._fits(need)
        except DoesNotFitError as error:
            return str(error)
        return ""

    def give_back(self, need: Need, spent: Amounts) -> None:
        """Note what a request came to beside what was sure, and let those go on that waited for it."""
        with self._lock:
            if any(need.most.values()) or any(spent.values()):
                self._own.add(spent, need.most, -1.0)
                self._bring_up_to_date()
                self._warned.look(self.spent, self.limits)
            self._version += 1
        self.wake()

    def undo(self, need: Need) -> None:
        """Take back what `take` did, for a request that did not arrive."""
        self.give_back(need, {kind: -amount for kind, amount in need.sure.items()})

    def wait(self, version: int) -> Future[None]:
        """Return what is done when something was given back since; see `leave`."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # a task that is cancelled must not take it from others
        with self._lock:
            if self._version != version:
                future.set_result(None)
            else:
                self._waiting.append(future)
        return future

    def leave(self, future: Future[None], *, wakes: bool) -> None:
        """Wait no more for what `wait` returned, and let the next one look, where there may be room for it."""
        with self._lock:
            if future in self._waiting:
                self._waiting.remove(future)
        if wakes:
            self.wake()

    def wake(self) -> None:
        """Let the next one look whether it fits."""
        with self._lock:
            waiting = self._waiting.popleft() if self._waiting else None
        if waiting is not None:
            waiting.set_result(None)

    def refuse(self, why: str) -> BudgetExceededError:
        """Count a call that is not made, and return the error to raise."""
        with self._lock:
            self._own.refused += 1
            self.why = why
            if self._own.refused == 1:
                logger.warning("from here on calls are not made, for the budget of %s: %s", self.whose, why)
            if self.register.is_shared:
                self._bring_up_to_date()
            error = self.error(f"this call is not made, for the budget of {self.whose}: {why}")
        on_refusal(error)
        return error

    @property
    def refused(self) -> int:
        """How many calls were not made since it was opened, as far as this process knows."""
        with self._lock:
            return self._others.refused + self._own.refused - self._past

    def all_refused(self) -> int:
        """Return how many calls were not made, with those of its roles."""
        every = (self, *self.roles.values())
        for one in every:
            one.look()
        return sum(one.refused for one in every)

    def exceeded(self, before: int = 0) -> BudgetExceededError | None:
        """Return the error that says at the end what was not made; None where all was.

        Args:
            before: How many calls were not made before what has ended.
        """
        refused = self.all_refused() - before
        if refused <= 0:
            return None
        short = [one for one in (self, *self.roles.values()) if one.refused]
        asides = [f"{self.failed:,} of the requests arrived and failed, and count"] if self.failed else []
        asides += [self.trouble] if self.trouble not in {"", self.why} else []
        asides += self.doubts()
        return self.error(told([(one.error(""), one.why) for one in short], refused, asides), refused)

    def doubts(self) -> list[str]:
        """Say of what is spent what is not counted for certain."""
        unsure = {**self._others.unsure, **self._own.unsure}
        return [f"not certain for {model!r}: {why}" for model, why in unsure.items()]

    def look(self) -> None:
        """See what others have counted."""
        if self.register.is_shared:
            with self._lock:
                self._bring_up_to_date()

    def price_of(self, model: str) -> tuple[float, float] | None:
        """Return what was given of a model's price: US dollars for a token read, and for one written; or None."""
        return self.budget.price_of(model)

    def note_unsure(self, model: str, why: str) -> None:
        """Say once of a model that what is asked of it is not counted for certain; or refuse it.

        Raises:
            BudgetExceededError: If the budget is strict.
        """
        if self.budget.strict:
            raise self.refuse(f"it is strict: {model!r} cannot be counted for certain, since {why}")
        known = self._own.unsure.get(model) == why
        self._own.unsure[model] = why
        if not known:
            logger.warning("the budget of %s is not certain for %r: %s", self.whose, model, why)

    def note_failed(self) -> None:
        """Count a request that arrived and failed."""
        with self._lock:
            self.failed += 1

    def error(self, message: str, refused: int = 1) -> BudgetExceededError:
        """Return an error of it."""
        spent = self.spent
        if self.budget.seconds is not None:
            spent["seconds"] = time.monotonic() - self.began
        return BudgetExceededError(message, budget=self.whose, limits=self.budget.limits, spent=spent, refused=refused)

    # -- the counts; the lock is held

    def _spent(self, kind: str) -> float:
        return self._others.spent.get(kind, 0.0) + self._own.spent.get(kind, 0.0)

    def _held(self, kind: str) -> float:
        return self._others.held.get(kind, 0.0) + self._own.held.get(kind, 0.0)

    def _check_time(self) -> None:
        if self.budget.seconds is not None and time.monotonic() - self.began >= self.budget.seconds:
            raise self.refuse(f"its {self.budget.seconds:g} seconds are over")

    def _fits(self, need: Need) -> bool:
        """Tell whether a request fits beside what is in the air.

        Raises:
            DoesNotFitError: If it does not fit without that either.
        """
        fits = True
        for kind, limit in self.limits.items():
            wanted, spent = need.sure.get(kind, 0.0) + need.most.get(kind, 0.0), self._spent(kind)
            if not wanted:
                continue
            if spent + wanted > limit + _LITTLE:
                raise DoesNotFitError(spent_of({kind: spent}, {kind: limit}, wanted=wanted, estimated=need.estimated))
            fits = fits and spent + self._held(kind) + wanted <= limit + _LITTLE
        return fits

    def _bring_up_to_date(self) -> None:
        try:
            self.register.change(self.record, lambda record: self._write(self._read(record)))
        except StoreError as error:
            if not self.trouble:
                logger.warning("what was spent of %s is written with the next request: %s", self.whose, error)
            self.trouble = f"its counter cannot be reached, in {self.register.place}: {error}"

    def _read(self, record: Record) -> Record:
        record = self._known = {**self._known, **record}  # a server that forgets gets back what is known here
        others = Counts()
        for name, part in record.items():
            if name != self._me and isinstance(part, dict):
                held = part.get("held") or {}
                others.add(part.get("spent") or {}, held)
                if any(held.values()) and has_ended(name):
                    others.add(held, held, -1.0)  # what it had in the air may have been paid for
                others.refused += part.get("refused") or 0
                others.unsure.update(part.get("unsure") or {})
        self._others = others
        return record

    def _write(self, record: Record) -> Record:
        record[self._me] = vars(self._own)
        return record


on_refusal: Callable[[BudgetExceededError], None] = lambda _: None  # noqa: E731 - who knows the phases takes its place
"""Told of each call that is not made, where it is."""
LIVE: weakref.WeakSet[OpenBudget] = weakref.WeakSet()
"""The budgets that somebody holds in this process."""
EVERYWHERE: list[OpenBudget] = []
"""Those that rule each call of this process."""
_KEPT: deque[OpenBudget] = deque(maxlen=100)
"""Those that came from other processes last: the next thing that comes along is of the same."""


def _arrived(budget: Budget, whose: str, record: str, where: str | None, passed: float) -> OpenBudget:
    """Return a budget that came from another process, or the one that is open here."""
    known = next((one for one in list(LIVE) if one.record == record), None)
    if known is not None:
        return known
    register: Register = NotShared()
    if where is not None:
        register = FileOfProcess(Path(where)) if where else OfStore()
    opened = OpenBudget(budget, whose, register=register, record=record)
    opened.began -= passed
    _KEPT.append(opened)
    return opened


def _before_fork() -> None:
    for one in list(LIVE):
        one.share()


if sys.platform != "win32":
    os.register_at_fork(before=_before_fork)
