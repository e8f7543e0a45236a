"""The outbox: records that wait on disk until a tracking server has taken them.

```
<state>/mlflow/
  new/<uid>/             being written; nobody reads it
  pending/<uid>/
    record.json          what is to be delivered
    artifacts/           the files that go with it
    failure.json         why the last try failed
    free                 or held-<host>-<pid>-<time>-<token>: who is delivering it
  done/<uid>/            the record, and receipt.json: where it went
```

Each step is one atomic rename, so a process may be killed anywhere. The lock of a record is a file that is
always there and changes its name: of two processes that rename it only one succeeds, also where the lock of
a dead process is taken over.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from dspy_cachectl.errors import CorruptEntryError, StoreUnavailableError
from dspy_cachectl.tracking import claims
from dspy_cachectl.tracking.record import Record, plain_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STATE_VARIABLE = "DSPY_CACHECTL_STATE"
"""The environment variable that names the folder for what has to survive a process."""

KEEP_DONE = 30 * 24 * 3600.0
"""Seconds for which delivered records are kept."""

ARTIFACTS = "artifacts"
"""The folder of a record's files, beside it."""

_KEEP_UNFINISHED = 24 * 3600.0


def state_dir() -> Path:
    """Return the folder for what has to survive a process: `DSPY_CACHECTL_STATE`, or the platform's own."""
    if named := os.environ.get(STATE_VARIABLE):
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_state_dir("dspy_cachectl", appauthor=False))


@dataclass(frozen=True)
class Failure:
    """The last failed try to deliver a record.

    Attributes:
        reason: Why it failed, without secrets.
        tries: How many tries have failed.
        at: When the last one failed, in seconds since 1970.
    """

    reason: str
    tries: int
    at: float


class Outbox:
    """The records of one state folder. Safe for threads and processes.

    Args:
        state: The state folder; `state_dir()` if not given. It is created when the first record is put.
    """

    def __init__(self, state: Path | None = None) -> None:
        self.root = (state or state_dir()) / "mlflow"

    def put(self, record: Record, files: Mapping[str, bytes] | None = None) -> Entry:
        """Write a record with its files, wholly or not at all. It has reached the disk when this returns.

        Args:
            record: The record.
            files: The content of its artifacts, by their path in the run.

        Raises:
            StoreUnavailableError: It could not be written.
        """
        new = self.root / "new" / record.uid
        pending = self.root / "pending"
        try:
            for folder in (new, pending):
                _make_private(folder)
            for name, data in (files or {}).items():
                path = new / ARTIFACTS / name
                _make_private(path.parent)
                _write(path, data)
                _sync_folder(path.parent)
            _write(new / "record.json", record.to_json())
            _write(new / claims.FREE, b"")
            _sync_folder(new)
            new.rename(pending / record.uid)
            _sync_folder(pending)
        except OSError as error:
            shutil.rmtree(new, ignore_errors=True)
            raise StoreUnavailableError(
                f"the outbox {self.root} cannot be written: {error}; name another folder in {STATE_VARIABLE}"
            ) from error
        return Entry(self.root, record.uid)

    def pending(self) -> list[Entry]:
        """Return what waits, the oldest first.

        Raises:
            StoreUnavailableError: The folder cannot be read.
        """
        return sorted(self._entries("pending"), key=lambda entry: (entry.written, entry.uid))

    def done(self) -> list[Entry]:
        """Return what was delivered and is still kept, the oldest first.

        Raises:
            StoreUnavailableError: The folder cannot be read.
        """
        return sorted(self._entries("done"), key=lambda entry: (entry.written, entry.uid))

    def sweep(self, *, now: float | None = None) -> None:
        """Remove what a killed process left half written, and what was delivered long ago."""
        now = time.time() if now is None else now
        for part, keep in (("new", _KEEP_UNFINISHED), ("done", KEEP_DONE)):
            for entry in self._entries(part):
                folder = self.root / part / entry.uid
                if now - _changed(folder) > keep:
                    shutil.rmtree(folder, ignore_errors=True)

    def _entries(self, part: str) -> Iterator[Entry]:
        try:
            names = [path.name for path in (self.root / part).iterdir()]
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreUnavailableError(f"the outbox {self.root} cannot be read: {error}") from error
        yield from (Entry(self.root, name) for name in names)


@dataclass(frozen=True)
class Entry:
    """A record in the outbox.

    Attributes:
        root: The outbox's folder.
        uid: The record's uid, and the name of its folder.
    """

    root: Path
    uid: str

    @property
    def folder(self) -> Path:
        """Where the record waits."""
        return self.root / "pending" / self.uid

    @property
    def written(self) -> float:
        """When the record was written, in seconds since 1970; 0 if it is gone."""
        return max(_changed(self.root / part / self.uid / "record.json") for part in ("pending", "done"))

    @property
    def waits(self) -> bool:
        """Whether it is still to be delivered."""
        return self.folder.exists()

    def read(self) -> Record:
        """Return the record.

        Raises:
            StoreUnavailableError: It cannot be read, or has been delivered meanwhile.
            CorruptEntryError: It is damaged.
            FormatVersionError: A newer version of this package wrote it.
        """
        path = self.folder / "record.json"
        try:
            record = Record.from_json(path.read_bytes())
        except OSError as error:
            raise StoreUnavailableError(f"{path} cannot be read: {error}") from error
        if record.uid != self.uid:
            raise CorruptEntryError(f"{path} holds another record's results ({record.uid})")
        return record

    def holder(self) -> claims.Holder | None:
        """Return who is delivering it; None if nobody is, or not any more."""
        return claims.holder(self.folder)

    def claim(self) -> claims.Claim | None:
        """Take the record for delivery; None if somebody else is delivering it, or it has been delivered."""
        return claims.take(self.folder)

    def failure(self) -> Failure | None:
        """Return the last failed try; None if there was none."""
        plain = _read_json(self.folder / "failure.json")
        try:
            return Failure(str(plain["reason"]), int(plain["tries"]), float(plain["at"])) if plain else None
        except (KeyError, TypeError, ValueError):
            return None

    def receipt(self) -> dict[str, Any] | None:
        """Return where it was delivered: `run_id`, `tracking_uri` and `at`; None if it was not."""
        return _read_json(self.root / "done" / self.uid / "receipt.json")

    def fail(self, reason: str) -> None:
        """Note why a try failed. The record goes on waiting."""
        last = self.failure()
        note = {"reason": plain_text(reason), "tries": (last.tries if last else 0) + 1, "at": time.time()}
        _replace(self.folder / "failure.json", orjson.dumps(note))

    def finish(self, *, run_id: str, tracking_uri: str) -> None:
        """Move the record to what is done. Nothing happens if somebody else has done so.

        Raises:
            OSError: It could not be moved.
        """
        receipt = {"run_id": run_id, "tracking_uri": tracking_uri, "at": time.time()}
        done = self.root / "done"
        _make_private(done)
        try:
            _replace(self.folder / "receipt.json", orjson.dumps(receipt))
            self.folder.rename(done / self.uid)
        except FileNotFoundError:
            if self.waits:
                raise
        _sync_folder(done)


def _make_private(folder: Path) -> None:
    if not folder.exists():
        _make_private(folder.parent)  # mkdir's own `parents` would not be private
        folder.mkdir(mode=0o700, exist_ok=True)


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        _write(new, data)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        plain = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return plain if isinstance(plain, dict) else None
