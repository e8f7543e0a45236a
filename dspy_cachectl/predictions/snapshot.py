"""The file of a snapshot: JSON that `json.load` reads, and that can be read one row at a time.

```
{
"metadata": {"kind":"dspy_cachectl.predictions", ...},
"predictions": [
{...},
{...}
],
"metrics": {..., "file":{"rows":2,"sha256":"..."}}
}
```

The hash covers every byte before it, so a file that was cut, or in which a bit flipped, is told from a whole one.
A compressed snapshot is the same in a zstd frame. A frame before it, which zstd skips, says whose it is. Where keys are
given each row is encrypted, and the metadata name the key.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson
import zstandard

from dspy_cachectl.boundary import encryption
from dspy_cachectl.boundary.ages import age_of
from dspy_cachectl.boundary.ownership import (
    PACKED_SNAPSHOT,
    PACKED_SNAPSHOT_HEAD,
    SNAPSHOT_HEAD,
    UNFINISHED_SNAPSHOT,
)
from dspy_cachectl.boundary.reading import LineReader, holds_too_many, padding
from dspy_cachectl.boundary.writing import writing_whole
from dspy_cachectl.config import settings
from dspy_cachectl.entries import values
from dspy_cachectl.errors import CorruptEntryError, EncryptedError, FormatVersionError
from dspy_cachectl.predictions.keys import SnapshotKey
from dspy_cachectl.predictions.rows import COUNTS, LONGEST, is_too_large, loads

FORMAT_VERSION = 9
"""Raised when the meaning of a file changes. Newer ones are left alone."""

FOLDER = ".dspy_cachectl"
"""The folder beside the snapshots that holds what is none: what is being written, the journal, the lock."""

_ROWS, _TAIL = b'"predictions": [', b'"metrics": '
_END = b"}}\n}\n"
_ENCRYPTED, _TEXT = "encrypted", "program_text"
"""In the metadata: the name of the key, and what the program says, which is encrypted as the rows are."""
_LONGEST_LINE = encryption.sealed_length(LONGEST) + 1
_OTHER_LINES = 8
"""How many lines there are beside the rows, and one or two more."""


@dataclass(frozen=True)
class SnapshotInfo:
    """A snapshot of a library, or a session that has not ended, or was killed.

    Attributes:
        path: Where it is.
        metadata: What its rows are predictions of.
        bytes: Its size; likewise `rows`, which are not counted of a session.
        rows: See `bytes`.
        age: Seconds since its oldest answer was drawn, or the session began; infinite where one lies ahead.
        saved: When it was written, or the session began, in Unix seconds.
        session: The session's name in the journal; None for a snapshot.
        is_alive: Whether the session's process lives.
        part: The name of the object that it is in an object store; None for a file.
    """

    path: Path
    metadata: dict[str, Any] = field(repr=False)
    bytes: int
    rows: int
    age: float
    saved: float
    session: str | None = None
    is_alive: bool = False
    part: str | None = None

    @property
    def key(self) -> SnapshotKey:
        """What its predictions depend on."""
        return SnapshotKey.from_dict(self.metadata["key"])

    @property
    def program(self) -> str:
        """The class of the program, or the beginning of its hash where that is DSPy's own."""
        sources = (name.partition(":")[2] for name in self.key.program.parts if name.startswith("source:"))
        return next(sources, self.key.program.hash[:12])

    @property
    def run_id(self) -> str:
        """The run that its predictions are draws of."""
        return str(self.metadata["run_id"])

    @property
    def recency(self) -> float:
        """When it was written, for who looks for the newest: before everything else where that lies ahead."""
        return self.saved if math.isfinite(age_of(self.saved)) else -math.inf

    @property
    def encrypted_by(self) -> str | None:
        """The name of the key that its rows are encrypted with; None where they are not."""
        return self.metadata.get(_ENCRYPTED)

    @property
    def is_complete(self) -> bool:
        """Whether the evaluation that wrote it came to its end."""
        return bool(self.metadata.get("complete"))


class SnapshotReader:
    """A snapshot being read. Its `metadata` is there at once, its `metrics` when all rows were read.

    Attributes:
        metadata: What the rows are predictions of.
        metrics: What was found about them; empty until `rows` has come to its end.
    """

    def __init__(self, path: Path, lines: LineReader) -> None:
        self._path = path
        self._lines = lines
        self._hash = hashlib.sha256()
        self.metrics: dict[str, Any] = {}
        head = self._line() + self._line()
        if not (head.startswith(SNAPSHOT_HEAD) and head.endswith(b",\n")):
            raise self._damaged("it does not begin as a snapshot")
        self.metadata = self._loads(b"{" + head[len(SNAPSHOT_HEAD) : -2])
        version = self.metadata.get("format")
        if not isinstance(version, int):
            raise self._damaged("it has no format version")
        if version > FORMAT_VERSION:
            raise FormatVersionError(
                f"the snapshot {path} has format version {version}; this dspy-cachectl reads up to {FORMAT_VERSION}. "
                "Upgrade dspy-cachectl to read it"
            )
        self._keys = settings().encryption_key
        name = self.metadata.get(_ENCRYPTED)
        if name is not None and not encryption.has_key(self._keys, name):
            raise EncryptedError(f"the snapshot {path} cannot be read: {encryption.not_given(self._keys, name)}")
        if name is not None and _TEXT in self.metadata:
            self.metadata[_TEXT] = self._loads(self._opened(orjson.dumps(self.metadata[_TEXT])))

    def rows(self) -> Iterator[bytes]:
        """Yield the rows, each a line of JSON. Believe none of them before the last has come.

        Raises:
            CorruptEntryError: At the end, if the file is damaged.
            StoreUnavailableError: If it cannot be read.
        """
        if self._line() != _ROWS + b"\n":
            raise self._damaged("its predictions are missing")
        count = 0
        while (line := self._line()) != b"],\n":
            if not line.endswith(b"\n"):
                raise self._damaged("it is cut short")
            count += 1
            yield self._opened(line.rstrip(b",\n"))
        self._finish(count)

    def _opened(self, row: bytes) -> bytes:
        try:
            return encryption.open_line(self._keys, row, about(self.metadata))
        except CorruptEntryError as error:
            raise self._damaged(str(error)) from error

    def _finish(self, count: int) -> None:
        checked = self._hash.copy()
        line = b"".join((self._line(), self._line(), self._line()))
        mark = line.rfind(b',"sha256":"')
        if not line.startswith(_TAIL) or mark < 0:
            raise self._damaged("it is cut short")
        checked.update(line[:mark])
        if line[mark:] != _seal(checked):
            raise self._damaged("its checksum does not match")
        metrics = self._loads(line[len(_TAIL) : -len(b"\n}\n")])
        if metrics.pop("file")["rows"] != count:
            raise self._damaged("it has lost rows")
        self.metrics = metrics

    def _line(self) -> bytes:
        line = self._lines.line()
        if len(line) > _LONGEST_LINE or (holds_too_many(line) and not line.startswith(encryption.SEALED)):
            raise self._damaged("it holds more than is ever written")
        self._hash.update(line)
        return line

    def _loads(self, text: bytes) -> dict[str, Any]:
        try:
            loaded = loads(text)
        except CorruptEntryError as error:
            raise self._damaged(str(error)) from error
        if not isinstance(loaded, dict):
            raise self._damaged("a part of it is no object")
        return loaded

    def _damaged(self, why: str) -> CorruptEntryError:
        return CorruptEntryError(f"the snapshot {self._path} is damaged: {why}")


@contextlib.contextmanager
def open_snapshot(path: Path) -> Iterator[SnapshotReader]:
    """Open a snapshot for reading, plain or compressed.

    Raises:
        CorruptEntryError: If it is damaged.
        FormatVersionError: If a newer version wrote it.
        StoreUnavailableError: If it cannot be read.
    """
    with LineReader(path, what="the snapshot", packed=is_packed(path), longest=_LONGEST_LINE) as lines:
        yield SnapshotReader(path, lines)


def is_packed(path: Path) -> bool:
    """Tell whether a snapshot is compressed: its name says it, also where it was set aside as damaged."""
    return PACKED_SNAPSHOT in path.name


def size_of(path: Path) -> int:
    """Return a file's size in bytes; 0 for one that went meanwhile."""
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def read_info(path: Path) -> SnapshotInfo:
    """Return what a snapshot says of itself, without reading its rows; unchecked. Raises as `open_snapshot`."""
    with open_snapshot(path) as reader:
        metadata = reader.metadata
    return info_of(path, metadata, size_of(path))


def info_of(path: Path, metadata: dict[str, Any], size: int, *, part: str | None = None) -> SnapshotInfo:
    """Return what is known of a snapshot by its metadata.

    Args:
        path: Where it is, or will be.
        metadata: What it says of itself.
        size: Its size in bytes.
        part: See `SnapshotInfo`.

    Raises:
        CorruptEntryError: If that is not what snapshots say.
    """
    try:
        check_metadata(metadata)
        # Where one answer lies ahead, it may be older than all others.
        age = max(age_of(float(metadata[name])) for name in ("oldest", "newest"))
        rows = COUNTS.index(int(metadata["rows"]))  # they are a count
        return SnapshotInfo(path, metadata, size, rows, age, float(metadata["saved"]), part=part)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CorruptEntryError(f"the metadata of {path} are not those of a snapshot: {error!r}") from error


def about(metadata: Mapping[str, Any]) -> bytes:
    """Return what encrypted rows belong to: those of another run, or of something else, are no use there."""
    return f"{metadata.get('hash')} {metadata.get('run_id')}".encode()


def sealed_rows(keys: encryption.Encryption, rows: Iterable[bytes], metadata: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield rows encrypted."""
    belonging = about(metadata)
    return (encryption.seal_line(keys, row, belonging) for row in rows)


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Look whether it is told what rows are predictions of. Raises KeyError, TypeError or ValueError otherwise."""
    SnapshotKey.from_dict(metadata["key"])
    "".join(metadata[name] for name in ("run_id", "base", "hash"))  # they are texts


def write_snapshot(
    path: Path, metadata: Mapping[str, Any], rows: Iterable[bytes], metrics: Mapping[str, Any], *, plain: bool = False
) -> None:
    """Write a snapshot, wholly or not at all; compressed where its name says so.

    It is made for its owner alone; one that is there keeps its mode.

    Args:
        path: Its name, ending in `.json` or `.json.zst`.
        metadata: What the rows are predictions of.
        rows: The rows, each a line of JSON.
        metrics: What was found about them.
        plain: Whether they are not encrypted though keys are given.

    Raises:
        StoreUnavailableError: If it could not be written. The file that was there is as it was.
        values.UnstorableError: If the metadata or metrics hold something that is not plain.
    """
    keys = None if plain else settings().encryption_key
    its = {name: value for name, value in metadata.items() if name != _ENCRYPTED}
    if keys is not None:
        its[_ENCRYPTED] = keys.name
        if _TEXT in its:
            its[_TEXT] = orjson.loads(encryption.seal_line(keys, values.dumps(its[_TEXT])[0], about(metadata)))
        rows = sealed_rows(keys, rows, metadata)
    head = _line({**its, "format": FORMAT_VERSION})
    members = [_member(name, value) for name, value in metrics.items() if name != "file"]
    unfinished = path.parent / FOLDER / f"{uuid.uuid4().hex}{UNFINISHED_SNAPSHOT}"
    with writing_whole(path, what="the snapshot", private=True, unfinished=unfinished) as file:
        write = _write_packed if is_packed(path) else _write
        write(file, head, rows, members)


def _write_packed(file: IO[bytes], head: bytes, rows: Iterable[bytes], metrics: list[bytes]) -> None:
    file.write(PACKED_SNAPSHOT_HEAD)
    compressor = zstandard.ZstdCompressor(level=6)
    with compressor.stream_writer(file, closefd=False) as packed:
        count = _write(packed, head, rows, metrics)
    size = compressor.frame_progression()[1]
    file.write(padding(unpacked_bytes=size, lines=count + _OTHER_LINES, packed_bytes=file.tell()))


def _write(file: Any, head: bytes, rows: Iterable[bytes], metrics: list[bytes]) -> int:
    hashed = hashlib.sha256()

    def put(data: bytes) -> None:
        hashed.update(data)
        file.write(data)

    put(SNAPSHOT_HEAD + head[1:] + b",\n" + _ROWS)
    count = 0
    for count, row in enumerate(rows, start=1):
        put(b",\n" + row if count > 1 else b"\n" + row)
    put(b"\n],\n")
    tail = b"{" + b",".join([*metrics, b'"file":' + orjson.dumps({"rows": count})[:-1]])
    put(_TAIL + tail)
    file.write(_seal(hashed))
    return count


def _member(name: str, value: Any) -> bytes:
    if name == values.TAG:
        raise values.UnstorableError(f"a metric cannot be called {name!r}")
    return orjson.dumps(name) + b":" + _line(value)


def _line(value: Any) -> bytes:
    line = values.dumps(value)[0]
    if is_too_large(line):
        raise values.UnstorableError(f"the metadata or metrics are too large: {len(line):,} bytes of JSON")
    return line


def _seal(hashed: Any) -> bytes:
    return f',"sha256":"{hashed.hexdigest()}"'.encode() + _END
