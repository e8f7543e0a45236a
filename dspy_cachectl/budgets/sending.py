"""Between DSPy and its engine: each request takes what it needs from the budgets, and gives back what it did not use.

What DSPy sends once more is a request of its own here, and so is each candidate. Who does not fit beside what is in the
air waits: a thread in its thread, a coroutine without one. What a request came to is known by its answer; one that the
provider refused costs nothing, and one that was given up, of which nobody knows, as much as it may have.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from concurrent import futures
from typing import Any, Protocol, TypeVar

from dspy_cachectl.budgets.counts import Amounts, Need
from dspy_cachectl.budgets.opened import OpenBudget
from dspy_cachectl.errors import BudgetExceededError

_POLL = 0.1
"""After how many seconds it is looked whether another process has given something back."""
_UTMOST = 600.0
"""For how many seconds one waits for other processes at most: as long as a provider takes at most."""

_HELD: contextvars.ContextVar[tuple[OpenBudget, ...]] = contextvars.ContextVar("dspy_cachectl_held", default=())
"""The budgets from which the request has taken within which this code runs."""
_THREADS = futures.ThreadPoolExecutor(4, thread_name_prefix="dspy-cachectl-budget")

T = TypeVar("T")


class Terms(Protocol):
    """What is known of what the requests of a call come to.

    Attributes:
        is_alone: Whether it sends the request itself; otherwise somebody's code does, and those that DSPy sends for it
            are counted in its place.
    """

    is_alone: bool = True

    def need(self, budget: OpenBudget) -> Need:
        """Return what a request needs of a budget."""
        ...

    def spent(self, budget: OpenBudget, answer: Any) -> Amounts:
        """Return what an answer came to, beside the request itself."""
        ...


class _Place:
    """The place of a request that somebody's own code sends: the first that is sent within takes it."""

    is_taken = False


_PLACE: contextvars.ContextVar[_Place | None] = contextvars.ContextVar("dspy_cachectl_place", default=None)


class _Request:
    """One request on its way."""

    def __init__(self, budgets: Sequence[OpenBudget], terms: Terms) -> None:
        around = _PLACE.get()
        self._terms, self._place = terms, None if terms.is_alone else _Place()
        is_another = around is None or around.is_taken
        if around is not None:
            around.is_taken = True
        needs = ((budget, terms.need(budget)) for budget in budgets)
        self._needs = [(budget, need if is_another else Need({}, need.most, need.estimated)) for budget, need in needs]
        self._is_shared = any(budget.register.is_shared for budget in budgets)

    def take(self) -> None:
        """Take what it needs, when there is room for it.

        Raises:
            BudgetExceededError: If there is none.
        """
        waiting = self._taking(may_wait=not _on_event_loop())
        for future in waiting:
            with contextlib.suppress(futures.TimeoutError):
                future.result(self._patience)

    async def take_async(self) -> None:
        """Do the same without holding a thread."""
        waiting = self._taking()
        look = lambda: next(waiting, None)  # noqa: E731
        while (future := await self._apart(look)) is not None:
            try:
                with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                    await asyncio.wait_for(asyncio.wrap_future(future), self._patience)
            except BaseException:
                waiting.close()
                raise

    def answered(self, answer: Any) -> None:
        """Note its answer."""
        for budget, need in self._needs:
            budget.give_back(need, {} if self._is_counted else self._terms.spent(budget, answer))

    def failed(self, error: BaseException) -> None:
        """Note that it has none."""
        for budget, need in self._needs:
            if self._is_counted:
                budget.give_back(need, {})
            elif _never_arrived(error):
                budget.undo(need)
            else:
                budget.note_failed()
                hidden = {kind: most for kind, most in need.most.items() if kind == "requests"}
                budget.give_back(need, hidden if _is_free(error) else need.most)

    async def done(self, note: Callable[[], None]) -> None:
        """Note either, without holding up an event loop, nor being held up by a cancellation."""
        await self._apart(note)

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """A block in which it is sent."""
        token, place = _HELD.set((*_HELD.get(), *(budget for budget, _ in self._needs))), _PLACE.set(self._place)
        try:
            yield
        finally:
            _PLACE.reset(place)
            _HELD.reset(token)

    @property
    def _is_counted(self) -> bool:
        """Whether requests that were sent within have been counted in its place."""
        return self._place is not None and self._place.is_taken

    @property
    def _patience(self) -> float | None:
        return _POLL if self._is_shared else None

    async def _apart(self, action: Callable[[], T]) -> T:
        """Do what may wait for a disk or a server in another thread."""
        if not self._is_shared:
            return action()
        context = contextvars.copy_context()
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(_THREADS, context.run, action))

    def _taking(self, *, may_wait: bool = True) -> Generator[futures.Future[None], None, None]:
        """Yield what to wait for, until all is taken. Where it ends, whoever waits behind it looks next."""
        began, around = time.monotonic(), _HELD.get()
        waited: tuple[OpenBudget, futures.Future[None]] | None = None
        try:
            while (found := self._take_all()) is not None:
                blocked, version = found
                if not may_wait or blocked in around:
                    raise blocked.refuse("it does not fit beside those in the air, which it cannot wait for from here")
                if self._is_shared and time.monotonic() - began > _UTMOST:
                    raise blocked.refuse(f"what others hold was not given back within {_UTMOST:g} s")
                if waited is not None:
                    waited[0].leave(waited[1], wakes=waited[0] is not blocked)
                waited = blocked, blocked.wait(version)
                yield waited[1]
        finally:
            if waited is not None:
                waited[0].leave(waited[1], wakes=True)

    def _take_all(self) -> tuple[OpenBudget, int] | None:
        """Take from all budgets, or from none. Return None, or where it does not fit now, and what to wait with."""
        taken: list[tuple[OpenBudget, Need]] = []
        try:
            for budget, need in self._needs:
                version = budget.take(need)
                if version is not None:
                    return budget, version
                taken.append((budget, need))
            taken = []
            return None
        finally:
            for budget, need in taken:
                budget.undo(need)


class Guard:
    """An engine that sends a request only where the budgets allow it, in place of the one that DSPy chose.

    Args:
        engine: The one that DSPy chose.
        budgets: What its requests draw on.
        terms: What is known of what they come to.

    Attributes:
        budgets: See above; likewise `terms`.
    """

    def __init__(self, engine: Any, budgets: Sequence[OpenBudget], terms: Terms) -> None:
        self._engine, self.budgets, self.terms = engine, budgets, terms

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def check(self) -> None:
        """Refuse a request, before it waits for anything else, that does not fit whatever becomes of the others.

        Raises:
            BudgetExceededError: If it does not.
        """
        for budget in self.budgets:
            budget.check(self.terms.need(budget))

    def complete(self, *args: Any) -> Any:
        """Ask for one answer."""
        return within(self.budgets, self.terms, lambda: self._engine.complete(*args))

    def complete_legacy(self, *args: Any, **kwargs: Any) -> Any:
        """Ask as LiteLLM does."""
        return within(self.budgets, self.terms, lambda: self._engine.complete_legacy(*args, **kwargs))

    def stream(self, *args: Any) -> Iterator[Any]:
        """Ask for an answer piece by piece."""
        request, last = _Request(self.budgets, self.terms), None
        request.take()
        try:
            for last in self._engine.stream(*args):
                yield last
        except BaseException as error:
            request.failed(error)
            raise
        request.answered(last)


class AsyncGuard(Guard):
    """The same for coroutines."""

    async def complete(self, *args: Any) -> Any:
        """Ask for one answer."""
        return await within_async(self.budgets, self.terms, lambda: self._engine.complete(*args))

    async def complete_legacy(self, *args: Any, **kwargs: Any) -> Any:
        """Ask as LiteLLM does."""
        return await within_async(self.budgets, self.terms, lambda: self._engine.complete_legacy(*args, **kwargs))

    async def stream(self, *args: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        """Ask for an answer piece by piece."""
        request, last = _Request(self.budgets, self.terms), None
        await request.take_async()
        try:
            async for last in self._engine.stream(*args):
                yield last
        except BaseException as raised:
            error = raised  # it is cleared at the end of this block
            await request.done(lambda: request.failed(error))
            raise
        await request.done(lambda: request.answered(last))


def within(budgets: Sequence[OpenBudget], terms: Terms, ask: Callable[[], T]) -> T:
    """Send a request, when there is room for it.

    Args:
        budgets: What it draws on.
        terms: What is known of what it comes to.
        ask: Sends it, and returns its answer.

    Raises:
        BudgetExceededError: If there is no room.
    """
    request = _Request(budgets, terms)
    request.take()
    try:
        with request.sending():
            answer = ask()
    except BaseException as error:
        request.failed(error)
        raise
    request.answered(answer)
    return answer


async def within_async(budgets: Sequence[OpenBudget], terms: Terms, ask: Callable[[], Awaitable[T]]) -> T:
    """Do the same as `within` without holding a thread."""
    request = _Request(budgets, terms)
    await request.take_async()
    try:
        with request.sending():
            answer = await ask()
    except BaseException as raised:
        error = raised
        await request.done(lambda: request.failed(error))
        raise
    await request.done(lambda: request.answered(answer))
    return answer


def refusal_in(error: BaseException | None) -> BudgetExceededError | None:
    """Return the refusal that DSPy made another error of, as it does of all that an engine raises; or None."""
    while error is not None and not isinstance(error, BudgetExceededError):
        error = error.__cause__
    return error


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _never_arrived(error: BaseException) -> bool:
    """Tell whether a request reached nobody: it could not connect, or was made of what cannot be sent."""
    return any(
        isinstance(one, (ConnectionRefusedError, BudgetExceededError)) or type(one).__name__.startswith("Connect")
        for one in _chain(error)
    )


def _is_free(error: BaseException) -> bool:
    """Tell whether nothing is paid for a request that failed: the provider itself said that it does not answer it."""
    status = next((code for one in _chain(error) if (code := _status(one)) is not None), None)
    gave_up = any("Timeout" in type(one).__name__ for one in _chain(error))
    return isinstance(error, Exception) and status is not None and status >= _REFUSED and not gave_up


_REFUSED = 400


def _status(error: BaseException) -> int | None:
    found = getattr(error, "status", None) or getattr(error, "status_code", None)
    return found if isinstance(found, int) else None
