"""Calls that wait until they may go: one after the other, in the order in which they came, whoever calls them.

One thread for each set of limits takes the next free time and lets the call go then. So a call waits without a thread
of its own where it is a coroutine, and no more than one time is lost where a process is killed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from dspy_cachectl.boundary.forks import free_after_fork, tell_after_fork
from dspy_cachectl.limits.rates import Rate
from dspy_cachectl.limits.slots import Claims, put_off, take
from dspy_cachectl.stores.registers.base import IN_MEMORY, MemoryRegister, Register
from dspy_cachectl.stores.tiers import Tiers

Say = Callable[[str, str], None]
"""Says something once: a topic, and what is said."""

T = TypeVar("T")

_CHARACTERS_A_TOKEN = 4.0
_SMOOTHING = 0.1


class Pacer:
    """Lets calls go when their limits allow it. Thread-safe; a forked child begins with nobody waiting.

    Args:
        register: Where it is counted who goes when.
        say: Says what happens to it.
    """

    def __init__(self, register: Register, say: Say) -> None:
        self._register, self._say = register, say
        self._own = MemoryRegister()
        self._lock = free_after_fork(threading.Lock())
        self._answer: dict[str, float] = {}
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Let nobody wait in a child, where no thread lets anybody go."""
        self._waiting: dict[tuple[str, ...], deque[tuple[Future[Claims], Callable[[], Claims]]]] = {}

    def enter(self, rates: Sequence[Rate], characters: int, max_tokens: float | None) -> Future[Claims]:
        """Return what is done when a call may go, with what it took.

        Args:
            rates: The limits.
            characters: How long what is asked is.
            max_tokens: How long the answer may be, or None; 0 where it has none that counts.
        """
        future: Future[Claims] = Future()
        names = tuple(rate.name for rate in rates)

        def claims() -> Claims:
            return self._claims(rates, characters, max_tokens)

        with self._lock:
            queue = self._waiting.get(names)
            if queue is not None:
                queue.append((future, claims))
                return future
            self._waiting[names] = deque([(future, claims)])
        threading.Thread(target=self._let_go, args=(names,), name="dspy-cachectl-rates", daemon=True).start()
        return future

    def settle(self, rates: Sequence[Rate], taken: Claims, characters: int, tokens: int) -> None:
        """Put what a call has used in the place of what was expected.

        Args:
            rates: The limits.
            taken: What it took when it went.
            characters: How long what was asked was.
            tokens: How many tokens it used, sent and received.
        """
        used = max(tokens - characters / _CHARACTERS_A_TOKEN, 0.0)
        for rate in rates:
            before = self._answer.get(rate.name, used)
            self._answer[rate.name] = before + _SMOOTHING * (used - before)
        more = {
            name: rate.seconds_a_token() * tokens - taken[name]
            for rate in rates
            if rate.tokens is not None and (name := _of_tokens(rate)) in taken
        }
        if more:
            self._try(partial(put_off, claims=more))

    def _claims(self, rates: Sequence[Rate], characters: int, max_tokens: float | None) -> dict[str, float]:
        found: dict[str, float] = {}
        for rate in rates:
            if rate.requests is not None:
                found[f"{rate.name} requests"] = rate.seconds_a_request()
            if rate.tokens is not None:
                answer = 0.0 if max_tokens == 0 else self._answer.get(rate.name, max_tokens or 0.0)
                found[_of_tokens(rate)] = rate.seconds_a_token() * (characters / _CHARACTERS_A_TOKEN + answer)
        return found

    def _let_go(self, names: tuple[str, ...]) -> None:
        """Let those go that wait for some limits, until nobody does. In a thread of its own."""
        while True:
            with self._lock:
                queue = self._waiting.get(names)
                if not queue:
                    self._waiting.pop(names, None)
                    return
                future, claims = queue.popleft()
            if future.set_running_or_notify_cancel():
                taken = claims()
                time.sleep(self._try(partial(take, claims=taken)))
                future.set_result(taken)

    def _try(self, action: Callable[[Register], T]) -> T:
        """Do something where it is counted, or in this process alone where that cannot be reached."""
        register = self._register
        if not register.is_shared:
            self._say("rates:memory", f"rate limits are counted in {register.place}")
        try:
            return action(register)
        except Exception as error:  # noqa: BLE001 - a call goes, and its answer reaches its caller, all the same
            self._say(
                "rates:away",
                f"rate limits are not counted in {register.place}, and each process keeps them by itself while that "
                f"lasts: {error}",
            )
        return action(self._own)


def pacer_of(tiers: Tiers | None, say: Say) -> Pacer:
    """Return what lets calls go among those who use some stores.

    Args:
        tiers: The stores; None for none, so that this process is alone.
        say: Says once what happens to them.
    """
    key = _ALONE if tiers is None else tiers
    with _LOCK:
        if key not in _PACERS:
            _PACERS[key] = Pacer(IN_MEMORY if tiers is None else tiers.register(), say)
        return _PACERS[key]


class _Alone:
    """Stands for a process without a store."""


_ALONE = _Alone()
_LOCK = free_after_fork(threading.Lock())
_PACERS: WeakKeyDictionary[Any, Pacer] = WeakKeyDictionary()


def _of_tokens(rate: Rate) -> str:
    return f"{rate.name} tokens"
