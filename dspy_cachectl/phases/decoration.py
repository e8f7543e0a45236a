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

from dspy_cachectl.context.process import SETTING
from dspy_cachectl.context.ruling import phase_around
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


def carry(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function, running in the phase that rules here and now, whatever thread calls it.

    For thread pools that do not carry DSPy's settings: `pool.submit(carry(program), question=...)`.
    """
    around = phase_around()
    context = None if around is None else replace(around, carried=True)
    return within(lambda: dspy.context(**{SETTING: context}), function)
