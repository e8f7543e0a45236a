"""The outbox: records that wait on disk, in `<state>/mlflow/outbox.db`, until a tracking server has taken them.

Every change is one transaction, so a process may be killed anywhere. A record is delivered by whoever has leased it,
and with it all other records for the same run, which either of them may have to create.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dspy_cachectl.errors import CorruptEntryError, StoreError
from dspy_cachectl.stores.database import Database
from dspy_cachectl.stores.liveness import is_alive, me
from dspy_cachectl.tracking.record import Record, safe_line

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

STATE_VARIABLE = "DSPY_CACHECTL_STATE"
"""The environment variable that names the folder for what has to survive a process."""

_VERSION = 1
_SCHEMA = (
    """
    CREATE TABLE parcels (
      uid TEXT PRIMARY KEY, owner TEXT NOT NULL, written REAL NOT NULL,  -- the owner: the uid its run is found by
      record BLOB NOT NULL, sha256 TEXT NOT NULL,                        -- JSON
      taken_by TEXT, lease TEXT,                                         -- the process, and its try
      tries INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '')
    """,
    "CREATE INDEX parcels_owner ON parcels (owner)",
    """
    CREATE TABLE files (
      uid TEXT NOT NULL, path TEXT NOT NULL, data BLOB NOT NULL, sha256 TEXT NOT NULL,
      PRIMARY KEY (uid, path)) WITHOUT ROWID
    """,
    "CREATE TRIGGER parcel_is_gone AFTER DELETE ON parcels BEGIN DELETE FROM files WHERE uid = OLD.uid; END",
)


def state_dir() -> Path:
    """Return the folder for what has to survive a process: `DSPY_CACHECTL_STATE`, or the platform's own."""
    if named := os.environ.get(STATE_VARIABLE):
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_state_dir("dspy_cachectl", appauthor=False))


@dataclass(frozen=True)
class WaitingRecord:
    """A record in the outbox, as it was when it was looked at.

    Attributes:
        uid: The record's uid.
        written: When it was written, in seconds since 1970.
        tries: How many tries to deliver it have failed.
        reason: Why the last one failed; empty before the first.
        is_held: Whether somebody is delivering it just now.
    """

    uid: str
    written: float
    tries: int
    reason: str
    is_held: bool
    _data: object
    _sha256: str

    def read(self) -> Record:
        """Return the record.

        Raises:
            CorruptEntryError: It is damaged.
            FormatVersionError: A newer version of this package wrote it.
        """
        return Record.from_json(_checked(self._data, self._sha256, f"record {self.uid}"))


class Outbox:
    """The records of the state folder. Safe for threads and processes; every method raises `StoreError`s only."""

    def __init__(self) -> None:
        self.path = state_dir() / "mlflow" / "outbox.db"
        self._database = Database(self.path, kind="outbox", version=_VERSION, schema=_SCHEMA, synchronous="FULL")

    def put(self, record: Record, files: Mapping[str, bytes] | None = None) -> None:
        """Write a record with its files, wholly or not at all. It has reached the disk when this returns.

        Args:
            record: The record.
            files: The content of its artifacts, by their path in the run.
        """
        data = record.to_json()
        with self._database.change() as sql:
            sql(
                "INSERT INTO parcels (uid, owner, written, record, sha256) VALUES (?, ?, ?, ?, ?)",
                *(record.uid, record.owner or record.uid, time.time(), data, _sha256(data)),
            )
            for path, content in (files or {}).items():
                sql("INSERT INTO files VALUES (?, ?, ?, ?)", record.uid, path, content, _sha256(content))

    def waiting(self) -> list[WaitingRecord]:
        """Return what waits, the oldest first."""
        rows = self._database.read(
            "SELECT uid, written, tries, reason, taken_by, lease, record, sha256 FROM parcels ORDER BY written, uid"
        )
        return [
            WaitingRecord(uid, written, tries, reason, self._is_held(taken_by, lease), data, sha256)
            for uid, written, tries, reason, taken_by, lease, data, sha256 in rows
        ]

    def files(self, record: Record) -> dict[str, bytes]:
        """Return the files of a record, by their path in the run.

        Raises:
            CorruptEntryError: One of them is damaged, or gone.
        """
        rows = self._database.read("SELECT path, data, sha256 FROM files WHERE uid = ?", record.uid)
        found = {path: _checked(data, sha256, f"the file {path} of record {record.uid}") for path, data, sha256 in rows}
        for path in record.artifacts:
            if path not in found:
                raise CorruptEntryError(f"the file {path} of record {record.uid} is gone from the outbox")
        return found

    def lease(self, uid: str) -> Lease | None:
        """Take a record for delivery; None if somebody else is delivering it, or it does not wait any more."""
        process, lease = me(self.path.parent), Lease(self._database, uid, uuid.uuid4().hex)
        with self._database.change() as sql:
            owners = sql("SELECT owner FROM parcels WHERE uid = ?", uid)
            if not owners:
                return None
            ((owner,),) = owners
            held = sql("SELECT taken_by, lease FROM parcels WHERE owner = ? AND lease IS NOT NULL", owner)
            if any(self._is_held(*row) for row in held):
                return None
            sql("UPDATE parcels SET taken_by = ?, lease = ? WHERE owner = ?", process, lease.token, owner)
        return lease

    def fail(self, uid: str, reason: str) -> None:
        """Note why a try failed. The record goes on waiting."""
        with self._database.change() as sql:
            sql("UPDATE parcels SET tries = tries + 1, reason = ? WHERE uid = ?", safe_line(reason), uid)

    def discard(self, uid: str) -> None:
        """Throw a record away; whoever is delivering it stops."""
        with self._database.change() as sql:
            sql("DELETE FROM parcels WHERE uid = ?", uid)

    def _is_held(self, process: str | None, lease: str | None) -> bool:
        return process is not None and lease not in _given_back and is_alive(self.path.parent, process)


_given_back: set[str] = set()
"""The leases that this process gave back where the disk did not take it down."""


@dataclass(frozen=True)
class Lease:
    """The right to deliver a record.

    It can be given back while somebody still works on the record, because that takes too long. Whoever works on
    it asks `holds()` before each change, and may go on as long as nobody else has taken the record.
    """

    _database: Database
    uid: str
    token: str

    def holds(self) -> bool:
        """Return whether the record is still to be delivered, and nobody else is at it."""
        query = "SELECT 1 FROM parcels WHERE uid = ? AND (lease IS NULL OR lease = ?)"
        return bool(self._database.read(query, self.uid, self.token))

    def finish(self) -> None:
        """Take the record out, because it was delivered. Nothing happens if it is not ours any more."""
        with self._database.change() as sql:
            sql("DELETE FROM parcels WHERE uid = ? AND (lease IS NULL OR lease = ?)", self.uid, self.token)

    def release(self) -> None:
        """Give the record back. Nothing happens if it is not this lease's, or has been delivered."""
        try:
            with self._database.change() as sql:
                sql("UPDATE parcels SET taken_by = NULL, lease = NULL WHERE lease = ?", self.token)
        except StoreError as error:
            _given_back.add(self.token)
            logger.debug("the lease of %s is given back in this process only: %s", self.uid, error)


def _checked(data: object, sha256: str, what: str) -> bytes:
    if not isinstance(data, bytes) or _sha256(data) != sha256:
        raise CorruptEntryError(f"{what} is damaged in the outbox")
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
