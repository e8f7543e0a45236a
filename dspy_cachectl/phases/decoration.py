"""Blocks, and functions that open one anew each time they are called, wherever they are called."""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

import dspy

from dspy_cachectl.calls.installation import open_like_parent
from dspy_cachectl.context.phases import PhaseContext, PhaseRun
from dspy_cachectl.context.process import SETTING, Place, state
from dspy_cachectl.context.ruling import phase_around
from dspy_cachectl.context.shared import SharedPassage
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
        return within(self._again, function, name=type(self).__name__)


def within(
    block: Callable[[], AbstractContextManager[Any]], function: Callable[P, T], *, name: str = ""
) -> Callable[P, T]:
    """Return a function, or a coroutine function, that runs within a block of its own each time it is called.

    Args:
        block: Makes the block.
        function: The function, or anything else that can be called.
        name: What the block is called in messages; empty where a generator may leave it.

    Raises:
        ConfigurationError: If it is a generator function, and the block has a name.
    """
    if name and (inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)):
        raise ConfigurationError(f"a generator leaves its {name} at the first value; open the {name} inside it")
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            with block():
                return await function(*args, **kwargs)

        return run_async  # type: ignore[return-value]

    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with block():
            return function(*args, **kwargs)

    # A DSPy program is callable but is no function: it has no name to take over.
    return functools.update_wrapper(run, function) if hasattr(function, "__name__") else run


class _Carried(Generic[P, T]):
    """A function that runs in a phase, whatever thread or process calls it. Pickled, it takes the phase's run along."""

    def __init__(self, function: Callable[P, T], context: PhaseContext | None) -> None:
        self._function = function
        self._context = context
        if hasattr(function, "__name__"):  # a DSPy program is callable but is no function
            functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        with dspy.context(**{SETTING: self._context}):
            return self._function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self._function, *_taken_along(self._context))


def _taken_along(context: PhaseContext | None) -> tuple[PhaseContext | None, str | None, Place | None]:
    """Return what of a phase goes to another process: itself, the file that its processes share, and the store."""
    run = None if context is None else state.runs.get(context.token)
    if run is None:
        return context, None, state.opened_with
    if not run.is_handed_over:
        run.share()
    return context, None if run.shared is None else run.shared.path, state.opened_with


def _arrived(
    function: Callable[P, T], context: PhaseContext | None, shared: str | None, place: Place | None
) -> _Carried[P, T]:
    """Return a function that came from another process, with the run of its phase and the store that this uses."""
    if context is not None and context.token not in state.runs:
        run = PhaseRun(context)
        run.shared = None if shared is None else SharedPassage(shared)
        run = state.take_over(run)
        run.refused = run.refused or open_like_parent(place)
    return _Carried(function, context)


def carry(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function, running in the phase that rules here and now, whatever thread or process calls it.

    For pools that do not carry DSPy's settings: `pool.submit(carry(program), question=...)`. To a process of a pool the
    phase goes with its run, its counters and its store: the same request in two workers is two draws, and what happens
    there is counted here. DSPy's settings do not go: the function, or what it is given, brings its LM.
    """
    around = phase_around()
    context = None if around is None else replace(around, carried=True)
    if inspect.iscoroutinefunction(function):
        return within(lambda: dspy.context(**{SETTING: context}), function)  # type: ignore[arg-type]
    return _Carried(function, context)
