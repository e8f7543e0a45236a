"""A line in a notebook that says how far along something is: one line, which is written over."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from dspy_cachectl.boundary.shown import harmless, harmless_html

_EVERY = 0.25
"""So many seconds are between two changes of the line: each is a message to the browser."""


def notebook_here() -> Any:
    """Return what publishes to the notebook in which this runs; None elsewhere, as in IPython in a terminal."""
    # Where there is a notebook, IPython is loaded: nothing is imported to find out.
    ipython: Any = sys.modules.get("IPython")
    shell: Any = None if ipython is None else ipython.get_ipython()
    return None if getattr(shell, "kernel", None) is None else shell.display_pub


class NotebookLine:
    """A line that is written over, from any thread; what it says last stays.

    Args:
        publisher: What `notebook_here` returned.
        title: What is done.
    """

    def __init__(self, publisher: Any, title: str) -> None:
        self._publisher = publisher
        self._title = title
        self._lock = threading.Lock()
        self._id = uuid.uuid4().hex
        self._last: tuple[int, int | None, Callable[[], str]] = (0, None, str)
        self._next = 0.0
        self._publish(update=False)

    def show(self, done: int, total: int | None, facts: Callable[[], str] = str) -> None:
        """Say how much is done, of how much, and what else there is to say."""
        with self._lock:
            self._last = (done, total, facts)
            if time.monotonic() >= self._next:
                self._publish(update=True)

    def close(self) -> None:
        """Let the line say what was said last."""
        with self._lock:
            self._publish(update=True)

    def _publish(self, *, update: bool) -> None:
        done, total, facts = self._last
        words = " · ".join(filter(None, [f"{self._title} {done:,}" + (f"/{total:,}" if total else ""), facts()]))
        bar = f'<progress value="{done}" max="{total}"></progress> ' if total else ""
        page = f'<div class="dspy-cachectl tex2jax_ignore mathjax_ignore">{bar}{harmless_html(words)}</div>'
        data = {"text/plain": harmless(words), "text/html": page}
        self._publisher.publish(data=data, metadata={}, transient={"display_id": self._id}, update=update)
        self._next = time.monotonic() + _EVERY
