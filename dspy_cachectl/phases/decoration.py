"""Blocks, and functions that open one anew each time they are called, wherever they are called."""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

from dspy_cachectl.calls.installation import open_like_parent, place_to_hand_over
from dspy_cachectl.context import carried
from dspy_cachectl.context.phases import NO_PHASE, PhaseContext, PhaseRun
from dspy_cachectl.context.process import SETTING, Place, state
from dspy_cachectl.context.ruling import phase_around
from dspy_cachectl.context.shared import SharedPassage, machine
from dspy_cachectl.errors import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")


class Block(ABC, Generic[V]):
    """A block that is entered by `with`, by `async with`, and by each call of a function that it decorates."""

    @abstractmethod
    def __enter__(self) -> V: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @abstractmethod
    def _again(self) -> Block[V]:
        """Return the same block, to be entered once more: overlapping calls of a function have one each."""

    async def __aenter__(self) -> V:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return the function, running in a block of its own each time it is called."""
        return _within(self._again, function, type(self).__name__)


def _within(block: Callable[[], AbstractContextManager[Any]], function: Callable[P, T], name: str) -> Callable[P, T]:
    """Return a function, or a coroutine function, that runs within a block of its own each time it is called.

    Args:
        block: Makes the block.
        function: The function, or anything else that can be called.
        name: What the block is called in messages.

    Raises:
        ConfigurationError: If it is a generator function, a class, or nothing that can be called; when it is called,
            if its call does not run its body.
    """
    if isinstance(function, type) or not callable(function):
        raise ConfigurationError(
            f"a {name} is opened around calls of a function, and {function!r} is none; of a class, decorate a method"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"a generator leaves its {name} at the first value; open the {name} inside it")
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):

        async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            with block():
                return await function(*args, **kwargs)  # type: ignore[misc] # it is a coroutine function

        return _named_like(function, run_async)  # type: ignore[arg-type]

    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with block():
            result = function(*args, **kwargs)
            if isinstance(result, _LATER):
                if isinstance(result, Coroutine):
                    result.close()  # it is not awaited, and need not be
                raise ConfigurationError(
                    f"what {function!r} returns ({type(result).__name__}) runs only after its {name}; open the {name} "
                    "inside it, or around all that uses it"
                )
            return result

    return _named_like(function, run)


_LATER = (Coroutine, Generator, AsyncGenerator, map, filter)
"""What a call returns that has not run yet."""


def _named_like(function: Any, run: Callable[P, T]) -> Callable[P, T]:
    # A DSPy program is callable but is no function: it has no name to take over.
    return functools.update_wrapper(run, function) if hasattr(function, "__name__") else run


_OF_FUNCTIONS = (*functools.WRAPPER_ASSIGNMENTS, "__code__", "__defaults__", "__kwdefaults__")
"""By these `inspect` knows what is a coroutine function, or a generator function."""


class _Carried(Generic[P, T]):
    """A function that runs in a phase, whatever thread or process calls it. Pickled, it takes the phase's run along."""

    def __init__(self, function: Callable[P, T], context: PhaseContext | None) -> None:
        self._function = function
        self._context = context
        if hasattr(function, "__name__"):  # a DSPy program is callable but is no function
            functools.update_wrapper(self, function, _OF_FUNCTIONS)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._in_phase():
            result = self._function(*args, **kwargs)
        return self._later(result) if isinstance(result, _LATER) else result

    def _in_phase(self) -> AbstractContextManager[None]:
        return carried.held(SETTING, NO_PHASE if self._context is None else self._context)

    def _later(self, result: Any) -> Any:
        """Return what has not run yet so that it runs in the phase, wherever that is."""
        if isinstance(result, Coroutine):
            return self._awaited(result)
        if isinstance(result, AsyncGenerator):
            return self._steps_async(result)
        return self._steps(result if isinstance(result, Generator) else (one for one in result))

    async def _awaited(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        with self._in_phase():
            return await coroutine

    def _steps(self, generator: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        step, given = generator.send, None
        while True:
            with self._in_phase():
                try:
                    value = step(given)
                except StopIteration as end:
                    return end.value
            try:
                step, given = generator.send, (yield value)
            except GeneratorExit:
                with self._in_phase():
                    generator.close()
                raise
            except BaseException as error:  # noqa: BLE001 - it is the generator's own to handle
                step, given = generator.throw, error

    async def _steps_async(self, generator: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
        step, given = generator.asend, None
        while True:
            with self._in_phase():
                try:
                    value = await step(given)
                except StopAsyncIteration:
                    return
            try:
                step, given = generator.asend, (yield value)
            except GeneratorExit:
                with self._in_phase():
                    await generator.aclose()
                raise
            except BaseException as error:  # noqa: BLE001 - it is the generator's own to handle
                step, given = generator.athrow, error

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self._function, *_taken_along(self._context))


def _taken_along(context: PhaseContext | None) -> tuple[PhaseContext | None, str | None, Place | None, str]:
    """Return what of a phase goes to another process: itself, the file that its processes share, store and machine."""
    run = None if context is None else state.runs.get(context.token)
    place = place_to_hand_over()
    if run is None:
        return context, None, place, machine()
    if not run.is_handed_over:
        run.share()
    return context, None if run.shared is None else run.shared.path, place, machine()


def _arrived(
    function: Callable[P, T], context: PhaseContext | None, shared: str | None, place: Place | None, home: str
) -> _Carried[P, T]:
    """Return a function that came from another process, with the run of its phase and the store that this uses."""
    if context is not None and context.token not in state.runs:
        run = PhaseRun(context)
        is_here = home == machine()
        run.shared = None if shared is None or not is_here else SharedPassage(shared)
        run = state.take_over(run)
        if not is_here:
            run.refused = (
                "it was opened on another machine, which cannot be asked which draw is whose. Evaluate with "
                "evaluate(..., executor=...), or open the phase here, with its run_id"
            )
        run.refused = run.refused or open_like_parent(place)
    return _Carried(function, context)


def carry(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function, running in the phase that rules here and now, whatever thread or process calls it.

    For pools that do not carry DSPy's settings: `pool.submit(carry(program), question=...)`. To a process of a pool the
    phase goes with its run, its counters and its store: the same request in two workers is two draws, and what happens
    there is counted here. DSPy's settings do not go: the function, or what it is given, brings its LM.
    What its call returns and has not run yet (a coroutine, a generator) runs in the phase as well. Where no phase rules
    here, it runs in none.

    Args:
        function: Anything that can be called; for a pool of processes, what can be pickled.
    """
    around = phase_around()
    return _Carried(function, None if around is None else replace(around, carried=True))
