"""How far along something is, on stderr, for stdout is for the result; and in a notebook, as a line there."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from dspy_cachectl.boundary.shown import harmless
from dspy_cachectl.showing.notebook import NotebookLine, notebook_here

Advance = Callable[[int, int], None]
"""Told how much is done, and of how much."""

_EVERY = 100

T = TypeVar("T")


@contextlib.contextmanager
def progress(title: str, *, shown: bool | None = None) -> Iterator[Callable[..., None]]:
    """Give a function that shows how much is done, of how much, and what a third argument has to say, if it is asked.

    Args:
        title: What is done.
        shown: Whether to show it, and to leave it there at the end. None: only where somebody watches, and only as
            long as it lasts.
    """
    if not (sys.stderr.isatty() if shown is None else shown):
        yield lambda _done, _total, _facts=str: None
        return
    publisher = notebook_here()
    if publisher is not None:
        with contextlib.closing(NotebookLine(publisher, title)) as line:
            yield line.show
        return
    from rich.console import Console

    from dspy_cachectl.showing.progress_line import ProgressLine

    # The stream is named: what is silenced meanwhile by redirecting stderr is not this.
    with ProgressLine(console=Console(file=sys.stderr), transient=shown is None) as bar:
        task = bar.add_task(harmless(title), total=None, facts="")
        yield lambda done, total, facts=str: bar.update(task, completed=done, total=total, facts=harmless(facts()))


def watched(items: Iterable[T], total: int, advance: Advance | None) -> Iterator[T]:
    """Yield items, and say now and then how many of them are done: to somebody, of whom nothing else is known."""
    for done, item in enumerate(items, start=1):
        yield item
        if advance is not None and not done % _EVERY:
            advance(done, total)
