"""Functions of every shape whose calls ask two times, most of them only when what they return is run."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import dspy

from tests.context.workers import Answer, make_lm


def ask() -> str:
    """One answer, whatever is asked."""
    return str(make_lm()("hello")[0])


def _asked(_: str) -> str:
    return ask()


async def ask_async() -> str:
    """The same, awaited."""
    return str((await make_lm().acall("hello"))[0])


def both() -> list[str]:
    """Two answers."""
    return [ask(), ask()]


def generator() -> Iterator[str]:
    """Two answers, each when it is wanted."""
    yield ask()
    yield ask()


async def coroutine(number: int = 2) -> list[str]:
    """Two answers, when it is awaited."""
    return [await ask_async() for _ in range(number)]


async def async_generator() -> AsyncIterator[str]:
    """Two answers, each when it is awaited."""
    yield await ask_async()
    yield await ask_async()


class Shapes:
    """Methods that ask."""

    generator = staticmethod(generator)

    def method(self) -> Iterator[str]:
        """Two answers."""
        yield from generator()

    async def async_method(self) -> list[str]:
        """Two answers."""
        return await coroutine()


class Generating:
    """An object whose call is a generator."""

    def __call__(self) -> Iterator[str]:
        """Two answers."""
        yield from generator()


class Awaited:
    """An object whose call is a coroutine."""

    async def __call__(self) -> list[str]:
        """Two answers."""
        return await coroutine()


class Twice(dspy.Module):  # type: ignore[misc]
    """A program that is awaited."""

    async def aforward(self) -> list[str]:
        """Two answers."""
        with dspy.context(lm=make_lm()):
            return [(await dspy.Predict(Answer).acall(question="Q?")).answer for _ in range(2)]


class Lazily:
    """An object whose call returns what only begins to ask when it is gone through."""

    def __init__(self, shape: str) -> None:
        self.shape = shape

    def __call__(self) -> Any:
        """Two answers, in one of three shapes, none of which its code tells."""
        return {
            "map": lambda: map(_asked, "12"),
            "generator": generator,
            "coroutine": coroutine,
            "async generator": async_generator,
        }[self.shape]()


SHAPES: dict[str, Callable[[], Any]] = {
    "function": both,
    "generator": generator,
    "generator method": Shapes().method,
    "generator of a class": Shapes.generator,
    "object that generates": Generating(),
    "coroutine": coroutine,
    "coroutine method": Shapes().async_method,
    "partial coroutine": functools.partial(coroutine, 2),
    "object that is awaited": Awaited(),
    "program that is awaited": Twice().acall,
    "async generator": async_generator,
    **{f"returns a {shape}": Lazily(shape) for shape in ("map", "generator", "coroutine", "async generator")},
}


def run(function: Callable[[], Any]) -> list[str]:
    """All answers of a function, by whatever has to be done for them."""
    result = function()
    if inspect.iscoroutine(result):
        return list(asyncio.run(result))
    if inspect.isasyncgen(result):

        async def drain() -> list[str]:
            return [one async for one in result]

        return asyncio.run(drain())
    return list(result)
