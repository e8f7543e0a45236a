"""The outbox: records that wait on disk, in `<state>/mlflow/outbox.db`, until a tracking server has taken them.

Every change is one transaction, so a process may be killed anywhere. A record is delivered by whoever has leased it,
and with it all other records for the same run, which either of them may have to create.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspy_cachectl.boundary.ownership import OUTBOX
from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.config import setting_now
from dspy_cachectl.errors import CorruptEntryError, StoreError, StoreUnavailableError
from dspy_cachectl.stores.database import Database
from dspy_cachectl.stores.liveness import is_alive, me
from dspy_cachectl.tracking.record import Record, safe_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

logger = logger_for(__name__)

_ITS_LEASES = """
SELECT taken_by, lease FROM records WHERE owner = (SELECT owner FROM records WHERE uid = ?)
"""

_VERSION = 3
"""Raised when the tables or what a record means change: another version's outbox is left alone."""

_SCHEMA = (
    """
    CREATE TABLE records (
      uid TEXT PRIMARY KEY, owner TEXT NOT NULL, written REAL NOT NULL,  -- the owner: the uid its run is found by
      tracking_uri TEXT, run_id TEXT, phase TEXT,                        -- what `status` shows of the record
      record BLOB NOT NULL, sha256 TEXT NOT NULL,                        -- JSON; of it and all that stands before it
      taken_by TEXT, lease TEXT,                                         -- the process, and its try
      tries INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '') WITHOUT ROWID
    """,
    """
    CREATE TABLE files (
      uid TEXT NOT NULL, path TEXT NOT NULL, sent_to TEXT, data BLOB NOT NULL, sha256 TEXT NOT NULL,
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
        row = _row(record, time.time())
        with self._database.change() as sql:
            sql(
                "INSERT INTO records (uid, owner, written, tracking_uri, run_id, phase, record, sha256)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                *(*row, _sha256_of(row)),
            )
            for path, content in (files or {}).items():
                sql(
                    "INSERT INTO files (uid, path, data, sha256) VALUES (?, ?, ?, ?)",
                    *(record.uid, path, content, _sha256(content)),
                )

    def waiting(self) -> list[Waiting]:
        """Return what waits, the oldest first."""
        if (state := state_dir()).exists() and not state.is_dir():
            raise StoreUnavailableError(f"{state} is no folder, so nothing waits in it; set DSPY_CACHECTL_STATE anew")
        rows = self._database.read(
            "SELECT uid, owner, written, tracking_uri, run_id, phase, record, sha256, tries, reason, taken_by, lease"
            " FROM records"
        )
        return sorted(map(self._waiting, rows), key=lambda one: (one.written, one.uid))

    def _waiting(self, row: tuple[Any, ...]) -> Waiting:
        (uid, _, written, tracking_uri, run_id, phase, data), (sha256, tries, reason, *held) = row[:7], row[7:]
        texts = isinstance(data, bytes) and all(isinstance(one, (str, type(None))) for one in row[3:6])
        if _sha256_of(row[:7]) != sha256 or not texts or not isinstance(written, float):
            # Nothing that stands there is what was written: not even where it was to go.
            reason, data, tracking_uri, run_id, phase = f"record {uid} is damaged in the outbox", None, None, None, None
            written = written if isinstance(written, float) else 0.0
        return Waiting(
            *(_shown(uid), written, tracking_uri, run_id, phase, tries if isinstance(tries, int) else 0, str(reason)),
            *(self._is_held(*held), data),
        )

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

    def sent(self, uid: str) -> dict[str, str]:
        """Return which files of a record a server has been sent, and for which run."""
        query = "SELECT path, sent_to FROM files WHERE uid = ? AND sent_to IS NOT NULL"
        return dict(self._database.read(query, uid))

    def lease(self, uid: str) -> Lease | None:
        """Take a record for delivery; None if somebody else is delivering it, or it does not wait any more.

        Where the disk takes nothing down it can be delivered all the same, by whoever comes: what a server has
        already is not sent to it again.
        """
        lease = Lease(self._database, uid, uuid.uuid4().hex)
        try:
            with self._database.change() as sql:
                if not self._is_free(sql(_ITS_LEASES, uid)):
                    return None
                sql(
                    "UPDATE records SET taken_by = ?, lease = ?"
                    " WHERE owner = (SELECT owner FROM records WHERE uid = ?)",
                    *(me(self.path.parent, user=lease), lease.token, uid),
                )
        except StoreError as error:
            if not self._is_free(self._database.read(_ITS_LEASES, uid)):
                return None
            logger.debug("%s is delivered without a lease: %s", uid, error)
            return replace(lease, is_noted=False)
        return lease

    def _is_free(self, leases: list[tuple[Any, ...]]) -> bool:
        """Tell whether a record is there, given the leases of all for its run, and nobody else has any of them."""
        return bool(leases) and not any(self._is_held(*one) for one in leases)

    def redirect(self, record: Record, *, written: float) -> None:
        """Write a record anew that is to go elsewhere now, as if it had never been tried."""
        row = _row(record, written)
        with self._database.change() as sql:
            sql(
                "UPDATE records SET owner = ?, written = ?, tracking_uri = ?, run_id = ?, phase = ?, record = ?,"
                " sha256 = ?, tries = 0, reason = '' WHERE uid = ?",
                *(*row[1:], _sha256_of(row), record.uid),
            )

    def fail(self, uid: str, reason: str) -> None:
        """Note why a try failed. The record goes on waiting."""
        with self._database.change() as sql:
            sql("UPDATE records SET tries = tries + 1, reason = ? WHERE uid = ?", safe_line(reason), uid)

    def discard(self, uid: str) -> None:
        """Throw a record away; whoever is delivering it stops."""
        with self._database.change() as sql:
            for (stored,) in sql("SELECT uid FROM records"):
                if _shown(stored) == uid:  # by looking at each: a damaged one is not in its order
                    sql("DELETE FROM records WHERE +uid = ?", stored)

    def _is_held(self, process: str | None, lease: str | None) -> bool:
        is_given_back = (self.path, lease) in _given_back
        return isinstance(process, str) and not is_given_back and is_alive(self.path.parent, process)


_given_back: set[tuple[Path, str]] = set()
"""The leases that this process gave back where the disk did not take it down, until it does."""


@dataclass(frozen=True)
class Lease:
    """The right to deliver a record.

    It can be given back while somebody still works on the record, because that takes too long. Whoever works on
    it asks `holds()` before each change, and may go on as long as nobody else has taken the record.
    """

    _database: Database
    uid: str
    token: str
    is_noted: bool = True

    def holds(self) -> bool:
        """Return whether the record is still to be delivered, and nobody else is at it."""
        query = "SELECT 1 FROM records WHERE uid = ? AND (lease IS NULL OR lease = ?)"
        return bool(self._database.read(query, self.uid, self.token))

    def note_sent(self, path: str, run_id: str | None) -> None:
        """Note that a server has been sent a file for a run, or that it has it not after all."""
        try:
            with self._database.change() as sql:
                sql("UPDATE files SET sent_to = ? WHERE uid = ? AND path = ?", run_id, self.uid, path)
        except StoreError as error:
            logger.debug("that %s was sent is not noted, so the next try may send it again: %s", path, error)

    def finish(self) -> None:
        """Take the record out, because it was delivered. Nothing happens if it is not ours any more."""
        with self._database.change() as sql:
            sql("DELETE FROM records WHERE uid = ? AND (lease IS NULL OR lease = ?)", self.uid, self.token)

    def release(self) -> None:
        """Give the record back. Nothing happens if it is not this lease's, or has been delivered."""
        if not self.is_noted:
            return  # there is nothing to take back
        mine = self._database.path, self.token
        given_back = [mine, *(one for one in list(_given_back) if one[0] == mine[0])]
        try:
            with self._database.change() as sql:
                for _, token in given_back:
                    sql("UPDATE records SET taken_by = NULL, lease = NULL WHERE lease = ?", token)
            _given_back.difference_update(given_back)
        except StoreError as error:
            _given_back.add(mine)
            logger.debug("the lease of %s is given back in this process only: %s", self.uid, error)


def _shown(uid: object) -> str:
    return uid if isinstance(uid, str) else repr(uid)


def _row(record: Record, written: float) -> tuple[Any, ...]:
    """Return what is kept of a record, in the order of its table, up to its checksum."""
    return (
        *(record.uid, record.owner or record.uid, written),
        *(record.tracking_uri, record.run_id, record.tags.get("dspy_cachectl.phase"), record.to_json()),
    )


def _sha256_of(row: Sequence[Any]) -> str:
    *before, data = row
    # Nothing and an empty text are two things, and so are a text and its bytes.
    plain = data if isinstance(data, bytes) else repr(data).encode()
    return _sha256(repr(before).encode("utf-8", "backslashreplace") + plain)


def _is_whole(data: object, sha256: str) -> bool:
    return isinstance(data, bytes) and _sha256(data) == sha256


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
