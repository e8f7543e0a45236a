"""A folder of snapshots: which predictions are there already, and room for more."""

from __future__ import annotations

import datetime as dt
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dspy_cachectl.errors import ConfigurationError, CorruptEntryError, StoreError
from dspy_cachectl.fingerprints.canonical import digest
from dspy_cachectl.fingerprints.data import Question
from dspy_cachectl.predictions import choice, journal, locks, snapshot
from dspy_cachectl.predictions.files import DAMAGED, LOCK, SnapshotFiles, SnapshotInfo, load_journal
from dspy_cachectl.predictions.journal import Journal, JournalReader
from dspy_cachectl.predictions.kept_rows import KeptRows
from dspy_cachectl.predictions.keys import SnapshotKey
from dspy_cachectl.predictions.session import Session

DEFAULT_ROOT = "outputs/cache/predictions"
DAY = 24 * 3600.0

_UNFINISHED = 3600.0


class Library:
    """Kept predictions, in a folder that threads and processes share. Nothing is opened before its first use.

    Args:
        root: The folder; it is made at the first write.
        compress: Whether new snapshots are compressed (`.json.zst`).
        max_age: How old an answer may be to be served, in seconds; older ones are removed.
        max_bytes: When the folder grows beyond it, the oldest snapshots are removed. In bytes.
    """

    def __init__(
        self,
        root: str | Path = DEFAULT_ROOT,
        *,
        compress: bool = False,
        max_age: float = 30 * DAY,
        max_bytes: int = 2 * 1024**3,
    ) -> None:
        if max_age <= 0 or max_bytes <= 0:
            raise ConfigurationError(f"max_age and max_bytes are positive, not {max_age!r} and {max_bytes!r}")
        self.root = Path(root).expanduser().absolute()
        self.compress = compress
        self.max_age = max_age
        self.max_bytes = max_bytes
        self._shelf = SnapshotFiles(self.root)
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()

    def open(
        self,
        key: SnapshotKey,
        questions: Sequence[Question],
        *,
        repeats: int = 1,
        run_id: str | None = None,
        max_age: float | None = None,
        force_recompute: bool = False,
    ) -> Session:
        """Begin an evaluation: find what is there of it.

        Args:
            key: What the predictions depend on.
            questions: The questions of the data set, in its order.
            repeats: How many answers to each question are wanted.
            run_id: Serve the answers of this run and no other's. None: those of the newest run that has some.
            max_age: In place of the library's.
            force_recompute: Serve nothing and draw everything anew. A forced evaluation that was killed is
                continued by the next forced one.

        Raises:
            ConfigurationError: If there is no question.
        """
        if not questions or repeats < 1:
            raise ConfigurationError("an evaluation has at least one question and one repeat")
        self.recover()
        index = KeptRows(questions)
        limit = self.max_age if max_age is None else max_age
        found = [*self._shelf.snapshots(), *self._shelf.journals()]
        wish = choice.Wish(key, run_id=run_id, max_age=limit, forced=force_recompute, repeats=repeats)
        chosen = choice.choose(wish, found, index, self._shelf.load)
        path = self._path(key, chosen.run_id)
        session = Session(
            key=key,
            questions=questions,
            run_id=chosen.run_id,
            repeats=repeats,
            path=path,
            using=tuple(info.path.name for info in chosen.sources),
            changes=choice.changes(wish, found, chosen, index, questions),
            forced=force_recompute,
            _library=self,
            _index=index,
            _is_finished=any(info.path == path and info.is_complete for info in chosen.sources),
        )
        self._sessions.add(session)
        return session

    def snapshots(self) -> list[SnapshotInfo]:
        """Return the snapshots, the newest first. Damaged ones are set aside, newer formats left out."""
        return self._shelf.snapshots()

    def usage(self) -> int:
        """Return how many bytes the library takes up: snapshots, journals and damaged files."""
        return self._shelf.usage()

    def prune(self) -> list[Path]:
        """Remove what is older than `max_age`, then the oldest until `max_bytes` is kept. Return what went.

        A file that a living session uses stays.

        Raises:
            StoreUnavailableError: If the folder cannot be written.
        """
        if not self.root.exists():
            return []
        with locks.locked(self.root / LOCK):
            return self._prune(keep=set())

    def expired(self) -> list[Path]:
        """Return what `prune` would remove. Nothing is changed."""
        shelf = SnapshotFiles(self.root, sets_aside=False)
        infos = {info.path: info for info in shelf.snapshots()}
        return self._over_limits(infos, self._in_use(shelf), remove=False)

    def clear(self, chosen: Callable[[SnapshotInfo], bool] | None = None) -> list[Path]:
        """Remove snapshots. Return what went. A file that a living session uses stays.

        Args:
            chosen: Tells which. None: all, and damaged files and journals of dead sessions as well.

        Raises:
            StoreUnavailableError: If the folder cannot be written.
        """
        if not self.root.exists():
            return []
        with locks.locked(self.root / LOCK):
            used = self._in_use()
            paths = [info.path for info in self._shelf.snapshots() if chosen is None or chosen(info)]
            if chosen is None:
                paths += self.root.glob(f"*{DAMAGED}")
                paths += [path for path in journal.journals(self.root) if not locks.is_in_use(path)]
            return self._shelf.remove([path for path in paths if path.name not in used])

    def recover(self) -> int:
        """Make snapshots of what killed evaluations had finished. Return of how many.

        It is done by itself whenever an evaluation begins. What cannot be made a snapshot now, because the folder
        cannot be written, is read from the journal all the same.
        """
        done = 0
        for path in journal.journals(self.root):
            if not locks.is_in_use(path):
                try:
                    with locks.locked(self.root / LOCK):
                        done += self._adopt(path)
                except StoreError:
                    continue  # read as a journal for now
        return done

    def journal(self, session: Session) -> Journal:
        """Open the journal of a session. Raises `StoreUnavailableError` if it cannot be written."""
        header = {**_facts(session), "started": time.time(), "file": session.path.name, "using": list(session.using)}
        header["questions"] = len(session.questions)
        return Journal(self.root, header)

    def write(self, session: Session, index: KeptRows, metadata: dict[str, Any], metrics: dict[str, Any]) -> None:
        """Write the snapshot of a session. Raises the `StoreError` family if it cannot be written."""
        with locks.locked(self.root / LOCK):
            self._absorb(session.path, index)
            self._write(session.path, {**metadata, **_facts(session)}, index, metrics, len(session.questions))
            self._prune(keep={session.path.name})

    def forget(self, session: Session) -> None:
        """Take note that a session has ended: its files may be removed."""
        self._sessions.discard(session)

    def _path(self, key: SnapshotKey, run_id: str) -> Path:
        # The version of the format is in the name: a newer one is never written over.
        hash_ = digest([snapshot.FORMAT_VERSION, key.hash, run_id])[:16]
        ending = snapshot.PACKED if self.compress else snapshot.PLAIN
        other = snapshot.PLAIN if self.compress else snapshot.PACKED
        name = f"{key.model.slug}_{hash_}"
        there = self.root / f"{name}{other}"
        return there if there.exists() else self.root / f"{name}{ending}"

    def _absorb(self, path: Path, index: KeptRows) -> None:
        """Take over what another process wrote to the same snapshot meanwhile."""
        if not path.exists():
            return
        try:
            with index.all_or_nothing(), snapshot.open_snapshot(path) as reader:
                for row in reader.rows():
                    index.absorb(row)
        except CorruptEntryError as error:
            self._shelf.set_aside(path, error)

    def _write(
        self, path: Path, metadata: dict[str, Any], index: KeptRows, metrics: dict[str, Any], questions: int
    ) -> None:
        now = time.time()
        oldest, newest = index.times() or (now, now)
        when = dt.datetime.fromtimestamp(now, dt.timezone.utc).isoformat(timespec="seconds")
        facts = {
            "timestamp": when,
            "saved": now,
            "oldest": oldest,
            "newest": newest,
            "rows": index.count(),
            "questions": questions,
        }
        snapshot.write_snapshot(path, {**metadata, **facts}, index.in_order(), metrics)

    def _adopt(self, path: Path) -> bool:
        """Make the journal of a dead session a part of its snapshot. The lock is held."""
        if not path.exists() or locks.is_in_use(path):
            return False
        reader = JournalReader(path)
        index = KeptRows()
        try:
            load_journal(reader, index)
            if index.count():
                target = self.root / Path(str(reader.header["file"])).name
                self._absorb(target, index)
                metadata = {
                    name: reader.header[name] for name in ("key", "base", "hash", "run_id", "forced", "repeats")
                }
                self._write(target, {**metadata, "complete": False}, index, {}, int(reader.header["questions"]))
            path.unlink()
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptEntryError(f"the journal {path} is damaged: {error!r}") from error
        except OSError as error:
            raise CorruptEntryError(f"the journal {path} cannot be removed: {error}") from error
        finally:
            index.close()
        return True

    def _in_use(self, shelf: SnapshotFiles | None = None) -> set[str]:
        mine = {name for session in self._sessions for name in (*session.using, session.path.name)}
        return (shelf or self._shelf).in_use() | mine

    def _prune(self, *, keep: set[str]) -> list[Path]:
        used = self._in_use() | keep
        # What a killed process left half written. Snapshots are only written by who has the lock.
        stale = list(self.root.glob(f".*_*{snapshot.UNFINISHED}"))
        half = (self.root / journal.FOLDER).glob(f"{journal.NEW}*")
        stale += [path for path in half if time.time() - path.stat().st_mtime > _UNFINISHED]
        gone = self._shelf.remove(stale)
        infos = {info.path: info for info in self._shelf.snapshots()}
        return gone + self._over_limits(infos, used, remove=True)

    def _over_limits(self, infos: dict[Path, SnapshotInfo], used: set[str], *, remove: bool) -> list[Path]:
        gone = []
        removable = []
        for path, size, written in self._shelf.all_files():
            is_ours = path in infos or path.name.endswith(DAMAGED)
            if is_ours and path.name not in used:
                age = infos[path].age if path in infos else time.time() - written
                removable.append((age, size, path))
        removable.sort(key=lambda item: -item[0])
        total = self.usage()
        for age, size, path in removable:
            if age > self.max_age or total > self.max_bytes:
                removed = self._shelf.remove([path]) if remove else [path]
                gone += removed
                total -= size * len(removed)
        return gone


def _facts(session: Session) -> dict[str, Any]:
    return {
        "key": session.key.as_dict(),
        "base": session.key.base,
        "hash": session.key.hash,
        "run_id": session.run_id,
        "forced": session.forced,
        "repeats": session.repeats,
    }
