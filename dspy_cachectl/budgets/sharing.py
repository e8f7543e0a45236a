"""Where the processes of a budget count: in a file of the one that opened it, or in the store that all of them use."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path

from dspy_cachectl.boundary.forks import lives
from dspy_cachectl.errors import StoreUnavailableError
from dspy_cachectl.stores.registers.base import IN_MEMORY, Change, MemoryRegister, Record, Register
from dspy_cachectl.stores.registers.file import NAME, FileRegister

_NODE = platform.node()

of_store: Callable[[], Register] = lambda: IN_MEMORY  # noqa: E731 - it is put in its place by who installs a store
"""Returns the register that most share of those that the store in use has."""


def new_part() -> str:
    """Return a name for what this process counts."""
    return f"{os.getpid()}@{_NODE}.{uuid.uuid4().hex[:8]}"


def has_ended(part: str) -> bool:
    """Tell whether the process of a part has ended, as far as this machine knows."""
    process, _, node = part.rpartition(".")[0].partition("@")
    return node == _NODE and process.isdecimal() and not lives(int(process))


class FileOfProcess(FileRegister):
    """The register of the processes that another hands a budget over to: it is gone where that has ended."""

    place = "a file of the process that opened it, for those that it is handed over to"

    def change(self, name: str, change: Change) -> Record:
        """Put what a function makes of a record in its place; see `Register`."""
        if not self.path.exists():
            raise StoreUnavailableError(
                "the process that opened it has ended, or runs on another machine; give the budget a name, and all "
                "processes a store that they share"
            )
        return super().change(name, change)


class OfStore:
    """The register of the store in use, whichever that is when it is asked."""

    is_shared = True

    @property
    def place(self) -> str:
        """Where the records are."""
        return of_store().place

    def change(self, name: str, change: Change) -> Record:
        """Put what a function makes of a record in its place; see `Register`."""
        return of_store().change(name, change)


class NotShared:
    """In the place of a register that a child of this process does not have."""

    place = "the memory of the process that opened it"
    is_shared = True

    def change(self, name: str, change: Change) -> Record:  # noqa: ARG002
        """Raise that it cannot be reached."""
        raise StoreUnavailableError("it could not be handed over to this process")


def handed_over(register: MemoryRegister, owner: object) -> FileOfProcess:
    """Return a register with the same records that other processes reach, for as long as its owner is held.

    Raises:
        StoreUnavailableError: If no file can be made.
    """
    try:
        folder = tempfile.mkdtemp(prefix="dspy-cachectl-budget-")
    except OSError as error:
        raise StoreUnavailableError(f"could not make a folder for temporary files: {error}") from error
    weakref.finalize(owner, _remove, folder, os.getpid())
    path = Path(folder) / NAME
    made = FileRegister(path)
    made.make()
    for name, record in register.records().items():
        made.change(name, lambda _, record=record: record)  # type: ignore[misc]
    return FileOfProcess(path)


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:  # a forked child ends before the budget does
        shutil.rmtree(folder, ignore_errors=True)
