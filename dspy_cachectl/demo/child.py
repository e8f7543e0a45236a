"""Processes that the demo starts, and that end with it: each makes the next answer when it is asked for."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from typing import Any
from unittest.mock import patch

from dspy_cachectl.errors import CachectlError


class DemoError(CachectlError):
    """The model's server or a child process failed in the middle of the demo; the message says what it said."""


class Child:
    """A process that runs a generator, value by value; a context manager, which is entered with the first of them.

    It is spawned and not forked, since threads are at work here. It ends with the block, and also when this process is
    killed: then the pipe between them closes.

    Args:
        answers: The generator function, one that can be pickled. It goes on to a value when it is asked.
        arguments: Its arguments.
        variables: Environment variables that the process has besides; it knows no MLflow run or server.

    Raises:
        DemoError: On entering: it failed.

    Attributes:
        first: The first value.
    """

    first: Any

    def __init__(self, answers: Callable[..., Iterator[Any]], *arguments: Any, **variables: str) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawning.Pipe()
        self._process = spawning.Process(target=_answer, args=(theirs, answers, arguments), daemon=True)
        # Not in the process: what starts it may import DSPy, which reads some of them at once.
        with patch.dict(os.environ):
            for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
                del os.environ[name]
            # Of a process that was killed, multiprocessing clears away the semaphores by itself, and says so.
            os.environ.update({"PYTHONWARNINGS": "ignore:resource_tracker", **variables})
            self._process.start()
        theirs.close()

    def __enter__(self) -> Child:
        try:
            self.first = self.ask()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, if it has not ended."""
        self.kill()
        self._process.join()
        self._pipe.close()

    def ask(self) -> Any:
        """Let it make the next value, and wait for that.

        Raises:
            DemoError: It failed, or ended.
        """
        try:
            self._pipe.send(None)
            value = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join()
            raise DemoError(f"a child process of the demo ended with exit code {self._process.exitcode}") from error
        if isinstance(value, DemoError):
            raise value
        return value

    def kill(self) -> None:
        """Kill it at once (SIGKILL): it gets no chance to tidy up."""
        self._process.kill()


def _answer(pipe: Connection, answers: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]) -> None:
    """Send what a generator yields, a value for each time the parent asks, until there is nobody to ask."""
    # Progress bars and notices of the libraries are not for the demo's own terminal.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    with suppress(EOFError, ConnectionError), closing(answers(*arguments)) as values:  # type: ignore[type-var]
        while True:
            pipe.recv()
            try:
                value = next(values)
            except Exception as error:  # noqa: BLE001 - whatever it is, the parent says it
                value = DemoError(f"a child process of the demo failed: {type(error).__name__}: {error}")
            pipe.send(value)
