"""A folder of snapshots: which predictions are there already, and room for more."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import Timeout

from dspy_cachectl.boundary import ownership
from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.boundary.writing import lock_at, make_private
from dspy_cachectl.config import DEFAULT_PREDICTIONS, is_objects, settings
from dspy_cachectl.errors import ConfigurationError, EncryptedError, StoreError, StoreUnavailableError
from dspy_cachectl.fingerprints.canonical import digest
from dspy_cachectl.fingerprints.data import Question
from dspy_cachectl.predictions import snapshot
from dspy_cachectl.predictions.choice import Wish, changes, choose
from dspy_cachectl.predictions.files import SnapshotFiles
from dspy_cachectl.predictions.journal import Journal
from dspy_cachectl.predictions.kept_rows import KeptRows, facts_of
from dspy_cachectl.predictions.keys import SnapshotKey
from dspy_cachectl.predictions.places import files_at
from dspy_cachectl.predictions.rows import PredictionRow, decode
from dspy_cachectl.predictions.session import Session
from dspy_cachectl.predictions.snapshot import SnapshotInfo

logger = logger_for(__name__)

Chosen = Callable[[SnapshotInfo], bool]
"""Tells whether something is to go."""

DAY = 24 * 3600.0

_LOCK = "lock"
_PATIENCE = 60.0
"""How long to wait for another process that writes to the same library, in seconds."""


class Library:
    """Kept predictions, in a folder that threads and processes share. Nothing is opened before its first use.

    In an object store the folder is one of this machine, from which snapshots are sent in the background.

    Args:
        root: The folder, made at the first write; or `s3://bucket/prefix`, and likewise `gs://` and `az://`.
        compress: Whether new snapshots are compressed (`.json.zst`); those that are there stay as they are.
        max_age: How old an answer may be to be served, in seconds. Older ones stay until somebody removes them.
        max_bytes: When the folder grows beyond it, the oldest snapshots are removed. In bytes. An object store has
            rules of its own.

    Raises:
        ConfigurationError: If a limit cannot be one, or the folder cannot be one.
        MissingExtraError: If the package for object stores is needed and not installed.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = DEFAULT_PREDICTIONS,
        *,
        compress: bool = False,
        max_age: float = 30 * DAY,
        max_bytes: int = 2 * 1024**3,
    ) -> None:
        if not max_age >= 0 or max_bytes <= 0:
            raise ConfigurationError(
                f"max_age is not negative and max_bytes is positive, not {max_age!r} and {max_bytes!r}"
            )
        # An empty text says nothing, and is not the working directory.
        self._place = os.fspath(root).strip() or DEFAULT_PREDICTIONS
        self._files = files_at(self._place)
        self.root = self._files.root
        # What is sent is compressed.
        self.compress = compress or is_objects(self._place)
        self.max_age = max_age
        self.max_bytes = max_bytes

    @classmethod
    def configured(cls, root: str | os.PathLike[str] | None = None) -> Library:
        """Return the library that the settings describe, or one in another folder that is kept in the same way."""
        now = settings()
        return cls(
            now.predictions_place if root is None else root,
            compress=now.predictions_compress,
            max_age=now.predictions_max_age,
        )

    def open(
        self,
        key: SnapshotKey,
        questions: Sequence[Question],
        *,
        repeats: int = 1,
        run_id: str | None = None,
        max_age: float | None = None,
        force_recompute: bool = False,
        part: tuple[int, int] = (0, 1),
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
            part: Which part of the questions is asked here, and of how many: every so many of them one.

        Raises:
            ConfigurationError: If there is no question.
        """
        if not questions or repeats < 1:
            raise ConfigurationError("an evaluation has at least one question and one repeat")
        self._recover()
        self._files.written()
        rows = KeptRows(questions)
        sessions = self._files.sessions()  # before the snapshots: what ends meanwhile is in one of the two
        found = [*self._files.snapshots(), *sessions]
        limit = self.max_age if max_age is None else max_age
        wish = Wish(key, run_id=run_id, max_age=limit, forced=force_recompute, repeats=repeats)
        choice = choose(wish, found, rows, self._files.load)
        kept = rows.served(repeats, part)
        if kept:
            wanted, sources = (
                len(range(part[0], len(questions), part[1])) * repeats,
                ", ".join(str(info.path) for info in choice.sources),
            )
            logger.info("loading %d of %d predictions from %s", kept, wanted, sources)
        path = self._path(key, choice.run_id)
        session = Session(
            key=key,
            questions=questions,
            run_id=choice.run_id,
            repeats=repeats,
            path=path,
            using=tuple(info.path.name for info in choice.sources),
            # Of a part it is no news that the others' answers are none of its own.
            changes=[] if choice.sources and not kept and part[1] > 1 else changes(wish, found, choice, len(questions)),
            forced=force_recompute,
            is_finished=any(info.path.name == path.name and info.is_complete for info in choice.sources),
            metrics=next(
                (_table_in(info.metadata, "metrics") for info in choice.sources if info.path.name == path.name), {}
            ),
            kept=rows,
            journal=Journal(self.root, keep_open=True),
            write=self._write,
            kept_at=lambda: next((there for there, _ in self._files.earlier(path)), None),
            kept_before=kept,
            part=part,
        )
        session.growth = self._files.growth_of(lambda: session.header, rows)
        if session.growth is not None:
            session.growth.start()
        return session

    def snapshots(self) -> list[SnapshotInfo]:
        """Return the snapshots, the newest first. Damaged ones are set aside, newer formats left out."""
        return self._files.snapshots()

    def rows_of(self, base: str, *, snapshots: int = 5) -> Iterator[PredictionRow]:
        """Yield the answers of the newest snapshots of a program, to whatever questions.

        Args:
            base: What its predictions depend on beside the questions (`SnapshotKey.base`).
            snapshots: Of how many snapshots.
        """
        rows, found = KeptRows(), (info for info in self._files.snapshots() if info.key.base == base)
        for info in itertools.islice(found, snapshots):
            self._files.load(info, rows)
        yield from (row for line in rows.in_order() if (row := decode(line)).error is None)
        rows.close()

    @property
    def shown(self) -> str:
        """Where it is, for people."""
        return self._files.shown

    def wait(self, limit: float = 30.0) -> int:
        """Wait until an object store has what was kept. A folder has it at once.

        Args:
            limit: How long, in seconds.

        Returns:
            How many snapshots it has not got by then. They go up with the next evaluation.
        """
        return self._files.wait(limit)

    def usage(self) -> int:
        """Return how many bytes the snapshots take up, the damaged ones too."""
        return self._files.usage()

    def prune(self) -> list[Path]:
        """Remove what is older than `max_age`, then the oldest until `max_bytes` is kept. Return what went.

        A file that a living session uses stays. An evaluation does the latter by itself.

        Raises:
            StoreUnavailableError: If the folder cannot be written.
        """
        if not self._files.is_there():
            return []
        with self._locked():
            return self._prune(max_age=self.max_age)

    def expired(self) -> list[Path]:
        """Return what `prune` would remove. Nothing is changed."""
        files = files_at(self._place, sets_aside=False)
        return files.over_limits(files.in_use(), max_age=self.max_age, max_bytes=self.max_bytes)

    def rewrite(self, *, plain: bool = False) -> Iterator[bool | None]:
        """Write the snapshots anew whose rows are not encrypted as the settings say. Yield of each whether it was.

        Args:
            plain: Whether they are to be in the clear, whatever the settings say.

        Raises:
            StoreUnavailableError: If the folder, or the object store, cannot be read or written.
        """
        if not self._files.is_there():
            return
        self._recover()
        files = files_at(self._place, sets_aside=False)
        with self._locked():
            for place in files.to_rewrite():
                yield _rewritten(files, *place, plain=plain)
        for place in files.parts_to_rewrite():
            yield _rewritten(files, *place, plain=plain)

    def clear(self, chosen: Chosen | None = None) -> list[Path]:
        """Remove snapshots. Return what went. A file that a living session uses stays.

        Args:
            chosen: Tells which, of them and of the sessions that were killed. None: all, and damaged files as well.

        Raises:
            StoreUnavailableError: If the folder cannot be written.
        """
        if not self._files.is_there():
            return []
        with self._locked():
            paths = self.clearable(chosen)
            for session in self._unfinished():
                if chosen is None or chosen(session):
                    self._files.journal.settle(str(session.session))
            return self._files.remove(paths)

    def clearable(self, chosen: Chosen | None = None) -> list[Path]:
        """Return the files that `clear` would remove. Nothing is changed."""
        files = files_at(self._place, sets_aside=False)
        used = files.in_use()
        paths = files.removable() if chosen is None else (info.path for info in files.snapshots() if chosen(info))
        return [path for path in paths if path.name not in used]

    def unfinished(self, chosen: Chosen | None = None) -> int:
        """Return of how many killed evaluations `clear` would remove what they had finished."""
        return sum(chosen is None or chosen(session) for session in self._unfinished())

    def _unfinished(self) -> list[SnapshotInfo]:
        """Return the dead sessions: what they had finished is in the journal."""
        return [session for session in self._files.sessions() if not session.is_alive]

    def _recover(self) -> None:
        """Make snapshots of what killed evaluations had finished.

        What cannot be made a snapshot now, because the folder cannot be written, is read from the journal all the same.
        """
        if not self._unfinished():
            return
        with suppress(StoreError), self._locked():
            for session in self._unfinished():
                with suppress(EncryptedError):  # who has its key will
                    self._adopt(session)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.root / snapshot.FOLDER / _LOCK
        try:
            make_private(path.parent)
            held = lock_at(path, timeout=_PATIENCE).acquire()
        except Timeout as error:
            raise StoreUnavailableError(f"{path} was held by another process for {_PATIENCE} s; try again") from error
        except OSError as error:
            raise StoreUnavailableError(f"{path} cannot be locked: {error}") from error
        with held:
            yield

    def _path(self, key: SnapshotKey, run_id: str) -> Path:
        # The version of the format is in the name: a newer one is never written over.
        hash_ = digest([snapshot.FORMAT_VERSION, key.hash, run_id])[:16]
        return self._free(f"{key.model.slug}_{hash_}", compress=self.compress)

    def _free(self, stem: str, *, compress: bool) -> Path:
        """Return the snapshot whose name begins so, or where it can be written beside what is not ours."""
        endings = (ownership.SNAPSHOT, ownership.PACKED_SNAPSHOT)
        for number in itertools.count():
            name = f"{stem}-{number}" if number else stem
            path, other = (self.root / f"{name}{ending}" for ending in (reversed(endings) if compress else endings))
            if ownership.is_snapshot(other, through_links=True):
                return other
            if self._is_mine(path):
                return path
        raise AssertionError  # there is no end to numbers

    def _is_mine(self, path: Path) -> bool:
        return not ownership.is_there(path) or ownership.is_snapshot(path, through_links=True)

    def _write(self, header: dict[str, Any], metadata: dict[str, Any], metrics: dict[str, Any], rows: KeptRows) -> None:
        """Write the snapshot of a session. Raises the `StoreError` family if it cannot be written."""
        with self._locked():
            self._write_whole(header, metadata, metrics, rows)
            self._prune(header["file"])
        self._files.written()

    def _write_whole(
        self, header: dict[str, Any], metadata: dict[str, Any], metrics: dict[str, Any], rows: KeptRows
    ) -> None:
        """Write a snapshot, with what another process wrote to it meanwhile. The lock is held."""
        name = ownership.SNAPSHOT_NAME.fullmatch(str(header["file"]))
        if name is None:
            raise StoreUnavailableError(f"{header['file']!r} is no name of a snapshot, and is not written")
        path = self.root / name[0]
        if not self._is_mine(path):  # somebody took the name meanwhile
            path = self._free(name["stem"], compress=snapshot.is_packed(path))
        replaces: list[str] = []
        for before, parts in self._files.earlier(path):
            found = self._files.load_snapshot(before, rows, over=False)
            # Another metric's scores stay true of the same answers.
            metrics = {**_told_apart(found or {}, metrics), **metrics}
            replaces += [] if found is None else parts
        hashes = {name: found["metric_hash"] for name, found in metrics.items() if _hash_of(found)}
        facts = {**metadata, **header, **facts_of(rows), "metrics": hashes}
        if header.get("parts", 1) > 1 and rows.count() < header["questions"] * header["repeats"]:
            facts["complete"] = False  # the other parts are still to come
        facts |= {"replaces": replaces} if replaces else {}
        snapshot.write_snapshot(path, facts, rows.in_order(), metrics)
        logger.info("saved %d predictions to %s", facts["rows"], path)

    def _adopt(self, session: SnapshotInfo) -> None:
        """Make what a dead session had finished a part of its snapshot. The lock is held."""
        name = str(session.session)
        with closing(KeptRows()) as rows:
            self._files.load_session(name, rows)
            if rows.count() and "file" in session.metadata:
                self._write_whole(session.metadata, {"complete": False}, {}, rows)
        self._files.journal.settle(name)

    def _prune(self, *keep: str, max_age: float = math.inf) -> list[Path]:
        # Snapshots are only written by who has the library's lock: what is half written is left of the dead.
        gone = self._files.remove((self.root / snapshot.FOLDER).glob(f"*{ownership.UNFINISHED_SNAPSHOT}"))
        used = self._files.in_use() | {*keep}
        return gone + self._files.remove(self._files.over_limits(used, max_age=max_age, max_bytes=self.max_bytes))


def _rewritten(files: SnapshotFiles, path: Path, new: Path, replaced: list[str], *, plain: bool) -> bool | None:
    keys = None if plain else settings().encryption_key
    with closing(KeptRows()) as rows:
        try:
            info = snapshot.read_info(path)
            is_right = info.encrypted_by == (None if keys is None else keys.name)
            metrics = None if is_right else files.load_snapshot(path, rows)
        except StoreError:
            return None  # nor can anybody else who has this key
        if metrics is not None:
            facts = {**info.metadata, "replaces": replaced} if replaced else info.metadata
            snapshot.write_snapshot(new, facts, rows.in_order(), metrics, plain=plain)
        return False if is_right else metrics is not None or None


def _told_apart(before: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was found before, with the hash of a metric in its name where one of that name has been edited."""
    found, now = {}, {name: _hash_of(value) for name, value in metrics.items()}
    for name, value in before.items():
        old = _hash_of(value)
        if old and old in now.values():
            continue  # an edit that was undone: it has its name again
        is_edited = old and now.get(name) not in {None, "", old}
        found[f"{name} ({old[:8]})" if is_edited else name] = value
    return found


def _hash_of(found: Any) -> str:
    return str(found.get("metric_hash") or "") if isinstance(found, dict) else ""


def _table_in(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = metadata.get(name)
    return found if isinstance(found, dict) else {}
