"""What the processes of one passage through a phase share: how often each request was asked, and what was counted.

It is a small file of the process that opened the phase, which goes with that process. Others have no other way to know
which draw is whose, so whoever cannot use it makes no draws.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import tempfile
import weakref
from pathlib import Path

import orjson

from dspy_cachectl.accounting.ledger import FIELDS, Row, Tally
from dspy_cachectl.boundary.forks import lives
from dspy_cachectl.errors import StoreUnavailableError
from dspy_cachectl.stores.database import Database

_SCHEMA = (
    "CREATE TABLE ordinals (what TEXT PRIMARY KEY, next INTEGER) WITHOUT ROWID",
    "CREATE TABLE tallies (row TEXT, counter TEXT, amount, PRIMARY KEY (row, counter)) WITHOUT ROWID",
    "CREATE TABLE ended (at REAL)",
)


class SharedPassage:
    """The ordinals and counters of a passage, for every process that has a part in it. Thread-safe, process-safe.

    Args:
        path: The file.

    Raises:
        StoreUnavailableError: By every method, where the file cannot be used or is gone.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._database = Database(path, kind="passage", version=1, schema=_SCHEMA, keep_open=True)

    @classmethod
    def made(cls) -> SharedPassage:
        """Return a new one, whose file goes when it is collected here, or this process ends."""
        try:
            folder = tempfile.mkdtemp(prefix="dspy-cachectl-phase-")
        except OSError as error:
            raise StoreUnavailableError(f"could not make a folder for temporary files: {error}") from error
        shared = cls(str(Path(folder) / "passage.db"))
        weakref.finalize(shared, _remove, folder, os.getpid())
        shared._database.make()
        return shared

    def next(self, what: str, at_least: int) -> int:
        """Return how often something was asked before, by whichever of the processes, and count it.

        Args:
            what: What is asked.
            at_least: How often it was before the first of them shared it.
        """
        self._see()
        with self._database.change() as sql:
            found = sql("SELECT next FROM ordinals WHERE what = ?", what)
            ordinal = max(at_least, found[0][0] if found else 0)
            sql("INSERT OR REPLACE INTO ordinals VALUES (?, ?)", what, ordinal + 1)
        return ordinal

    def forget(self, beginning: str) -> None:
        """Count from 0 again what begins so."""
        self._see()
        with self._database.change() as sql:
            sql("DELETE FROM ordinals WHERE substr(what, 1, ?) = ?", len(beginning), beginning)

    def add(self, row: Row, tally: Tally) -> None:
        """Add what happened to a call in another process than the one that opened the phase."""
        self._see()
        amounts = {name: amount for name in FIELDS if (amount := getattr(tally, name))}
        with self._database.change() as sql:
            if "late" not in amounts and tally.calls and sql("SELECT 1 FROM ended"):
                amounts["late"] = tally.calls
            for name, amount in amounts.items():
                sql(
                    "INSERT INTO tallies VALUES (?, ?, ?)"
                    " ON CONFLICT (row, counter) DO UPDATE SET amount = amount + excluded.amount",
                    orjson.dumps(list(row)).decode(),
                    name,
                    amount,
                )

    def end(self) -> None:
        """Note that the phase's block has ended: what is counted from here on comes late."""
        with self._database.change() as sql:
            sql("INSERT INTO ended VALUES (0)")

    def has_ended(self, process: int) -> bool:
        """Tell whether the phase's block has ended.

        Args:
            process: The process that opened it, which removes the file when nobody holds the passage any more.
        """
        if not Path(self.path).exists():
            return lives(process)
        return bool(self._database.read("SELECT 1 FROM ended"))

    def tallies(self) -> dict[Row, Tally]:
        """Return what was added, row by row."""
        found: dict[Row, Tally] = {}
        for text, counter, amount in self._database.read("SELECT row, counter, amount FROM tallies"):
            setattr(found.setdefault(Row(*orjson.loads(text)), Tally()), counter, amount)
        return found

    def _see(self) -> None:
        if not Path(self.path).exists():
            raise StoreUnavailableError(
                "the process that opened this phase has ended, or runs on another machine: what was asked in it cannot "
                "be known here. Open the phase here, with its run_id"
            )


@functools.cache
def machine() -> str:
    """Return what tells this machine, since it was started, from others."""
    started = Path("/proc/sys/kernel/random/boot_id")
    return f"{platform.node()} {started.read_text().strip() if started.exists() else ''}".strip()


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:  # a forked child ends before the phase does
        shutil.rmtree(folder, ignore_errors=True)
