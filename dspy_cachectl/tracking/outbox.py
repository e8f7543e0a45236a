"""The outbox: records that wait on disk, in `<state>/mlflow/outbox.db`, until a tracking server has taken them.

Every change is one transaction, so a process may be killed anywhere. A record is delivered by whoever has leased it,
and with it all other records for the same run, which either of them may have to create.
"""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dspy_cachectl.boundary.ownership import OUTBOX
from dspy_cachectl.config import setting_now
from dspy_cachectl.errors import CorruptEntryError, StoreError
from dspy_cachectl.stores.database import Database
from dspy_cachectl.stores.liveness import is_alive, me
from dspy_cachectl.tracking.record import Record, safe_line

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

_VERSION = 2
"""Raised when the tables or what a record means change: another version's outbox is left alone."""

_SCHEMA = (
    """
    CREATE TABLE records (
      uid TEXT PRIMARY KEY, owner TEXT NOT NULL, written REAL NOT NULL,  -- the owner: the uid its run is found by
      tracking_uri TEXT, run_id TEXT, phase TEXT,                        -- what `status` shows of the record
      record BLOB NOT NULL, sha256 TEXT NOT NULL,                        -- JSON
      taken_by TEXT, lease TEXT,                                         -- the process, and its try
      tries INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '')
    """,
    "CREATE INDEX records_owner ON records (owner)",
    """
    CREATE TABLE files (
      uid TEXT NOT NULL, path TEXT NOT NULL, data BLOB NOT NULL, sha256 TEXT NOT NULL,
      PRIMARY KEY (uid, path)) WITHOUT ROWID
    """,
    "CREATE TRIGGER record_is_gone AFTER DELETE ON records BEGIN DELETE FROM files WHERE uid = OLD.uid; END",
)


def state_dir() -> Path:
    """Return the folder for what has to survive a process: the one that is configured, or the platform's own."""
    return Path(setting_now("state"))


@dataclass(frozen=True)
class Waiting:
    """A record in the outbox, as it was when it was looked at.

    Attributes:
        uid: Its identity.
        written: When it was written, in seconds since 1970.
        tracking_uri: Where it is to go; None if that is not known.
        run_id: The run it is for; None for a run of its own.
        phase: The phase it tells of.
        tries: How many tries to deliver it have failed.
        reason: Why the last one failed, or why the record cannot be read; empty before the first.
        being_delivered: Whether somebody is delivering it just now.
    """

    uid: str
    written: float
    tracking_uri: str | None
    run_id: str | None
    phase: str | None
    tries: int
    reason: str
    being_delivered: bool
    _data: bytes | None

    @property
    def is_damaged(self) -> bool:
        """Whether it is not as it was written."""
        return self._data is None

    def read(self) -> Record:
        """Return the record.

        Raises:
            CorruptEntryError: It is damaged.
        """
        if self._data is None:
            raise CorruptEntryError(self.reason)
        return Record.from_json(self._data)


class Outbox:
    """The records of the state folder. Safe for threads and processes; every method raises `StoreError`s only."""

    def __init__(self) -> None:
        self.path = state_dir() / "mlflow" / "outbox.db"
        self._database = Database(self.path, kind=OUTBOX, version=_VERSION, schema=_SCHEMA, synchronous="FULL")

    def put(self, record: Record, files: Mapping[str, bytes] | None = None) -> None:
        """Write a record with its files, wholly or not at all. It has reached the disk when this returns.

        Args:
            record: The record.
            files: The content of its artifacts, by their path in the run.
        """
        data = record.to_json()
        with self._database.change() as sql:
            sql(
                "INSERT INTO records (uid, owner, written, tracking_uri, run_id, phase, record, sha256)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                *(record.uid, record.owner or record.uid, time.time()),
                *(record.tracking_uri, record.run_id, record.tags.get("dspy_cachectl.phase")),
                *(data, _sha256(data)),
            )
            for path, content in (files or {}).items():
                sql("INSERT INTO files VALUES (?, ?, ?, ?)", record.uid, path, content, _sha256(content))

    def waiting(self) -> list[Waiting]:
        """Return what waits, the oldest first."""
        rows = self._database.read(
            "SELECT uid, written, tracking_uri, run_id, phase, tries, reason, taken_by, lease, record, sha256"
            " FROM records ORDER BY written, uid"
        )
        return [
            Waiting(
                *(uid, written, tracking_uri, run_id, phase, tries),
                reason if _is_whole(data, sha256) else f"record {uid} is damaged in the outbox",
                self._is_held(taken_by, lease),
                data if _is_whole(data, sha256) else None,
            )
            for uid, written, tracking_uri, run_id, phase, tries, reason, taken_by, lease, data, sha256 in rows
        ]

    def files(self, record: Record) -> dict[str, bytes]:
        """Return the files of a record, by their path in the run.

        Raises:
            CorruptEntryError: One of them is damaged, or gone.
        """
        rows = self._database.read("SELECT path, data, sha256 FROM files WHERE uid = ?", record.uid)
        found = {path: data for path, data, sha256 in rows if _is_whole(data, sha256)}
        if lost := set(record.artifacts) - set(found):
            raise CorruptEntryError(
                f"of record {record.uid} {', '.join(sorted(lost))} is damaged or gone in the outbox"
            )
        return found

    def lease(self, uid: str) -> Lease | None:
        """Take a record for delivery; None if somebody else is delivering it, or it does not wait any more."""
        process, lease = me(self.path.parent), Lease(self._database, uid, uuid.uuid4().hex)
        with self._database.change() as sql:
            held = sql(
                "SELECT taken_by, lease FROM records"
                " WHERE owner = (SELECT owner FROM records WHERE uid = ?) AND lease IS NOT NULL",
                uid,
            )
            if any(self._is_held(*row) for row in held):
                return None
            sql(
                "UPDATE records SET taken_by = ?, lease = ? WHERE owner = (SELECT owner FROM records WHERE uid = ?)",
                *(process, lease.token, uid),
            )
            ((taken,),) = sql("SELECT changes()")
        return lease if taken else None

    def fail(self, uid: str, reason: str) -> None:
        """Note why a try failed. The record goes on waiting."""
        with self._database.change() as sql:
            sql("UPDATE records SET tries = tries + 1, reason = ? WHERE uid = ?", safe_line(reason), uid)

    def discard(self, uid: str) -> None:
        """Throw a record away; whoever is delivering it stops."""
        with self._database.change() as sql:
            sql("DELETE FROM records WHERE uid = ?", uid)

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
        query = "SELECT 1 FROM records WHERE uid = ? AND (lease IS NULL OR lease = ?)"
        return bool(self._database.read(query, self.uid, self.token))

    def finish(self) -> None:
        """Take the record out, because it was delivered. Nothing happens if it is not ours any more."""
        with self._database.change() as sql:
            sql("DELETE FROM records WHERE uid = ? AND (lease IS NULL OR lease = ?)", self.uid, self.token)

    def release(self) -> None:
        """Give the record back. Nothing happens if it is not this lease's, or has been delivered."""
        try:
            with self._database.change() as sql:
                sql("UPDATE records SET taken_by = NULL, lease = NULL WHERE lease = ?", self.token)
        except StoreError as error:
            _given_back.add(self.token)
            logger.debug("the lease of %s is given back in this process only: %s", self.uid, error)


def _is_whole(data: object, sha256: str) -> bool:
    return isinstance(data, bytes) and _sha256(data) == sha256


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
