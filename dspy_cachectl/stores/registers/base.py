"""What a register is, and the one that holds records for the threads and coroutines of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.stores.base import Store

Record = dict[str, Any]
"""What is kept under a name: JSON, and `{}` where nothing is kept yet."""

Change = Callable[[Record], Record]
"""Makes the next record of one, which it may change; called again where another was faster, so it does nothing else."""


class Register(Protocol):
    """Records that are changed in one step. Thread-safe."""

    @property
    def place(self) -> str:
        """Where the records are and who shares them, as people would say it."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether other processes see them."""
        ...

    def change(self, name: str, change: Change) -> Record:
        """Put what a function makes of a record in its place, in one step. Return the new one.

        Args:
            name: The record's name.
            change: Makes it. What it raises leaves the record as it is, and goes through.

        Raises:
            StoreError: If the record cannot be read or written.
        """
        ...


@runtime_checkable
class RegisteringStore(Store, Protocol):
    """A store that keeps records for all who use it. Others do without."""

    def register(self) -> Register:
        """Return the register of all who use the store."""
        ...


class MemoryRegister:
    """Records of this process. A forked child has copies of its own."""

    place = "this process's memory, for this process alone"
    is_shared = False

    def __init__(self) -> None:
        self._lock = free_after_fork(threading.Lock())
        self._records: dict[str, Record] = {}

    def change(self, name: str, change: Change) -> Record:
        """Put what a function makes of a record in its place; see `Register`."""
        with self._lock:
            changed = self._records[name] = change(dict(self._records.get(name, {})))
            return changed

    def records(self) -> dict[str, Record]:
        """Return what is kept, by name."""
        with self._lock:
            return dict(self._records)


IN_MEMORY = MemoryRegister()
"""The register of this process, where no store has one."""
