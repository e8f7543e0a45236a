"""Waiting for other processes that use a database of SQLite, and why it failed, in words."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def patiently(use: Callable[[], _T], patience: float) -> _T:
    """Do something as soon as no other process is in the way.

    SQLite's own waiting sleeps longer the longer it has waited, so that whoever was unlucky stays so: with eight busy
    processes a write took seconds.

    Args:
        use: What is done; without SQLite's own waiting.
        patience: After how many seconds to give up with SQLite's own error.
    """
    give_up = time.monotonic() + patience
    while True:
        try:
            return use()
        except sqlite3.OperationalError as error:
            if not is_locked(error) or time.monotonic() >= give_up:
                raise
        time.sleep(random.uniform(0.0005, 0.002))  # noqa: S311 - no secret; only out of step with the others


def as_text(data: bytes) -> str:
    """Return a text of a table. What somebody planted need not be UTF-8, and must not hide all the rest."""
    return data.decode("utf-8", "replace")


def is_locked(error: BaseException) -> bool:
    """Tell whether it is another process that is in the way."""
    return "locked" in str(error)


def reason(error: BaseException) -> str:
    """Say in a message why SQLite failed, and what to do where a database is damaged."""
    if type(error) is sqlite3.DatabaseError:
        return f"{error}. It is damaged, or no database; move it away to begin anew"
    return str(error) or type(error).__name__
