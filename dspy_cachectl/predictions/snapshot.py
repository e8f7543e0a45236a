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
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import orjson
import zstandard

from dspy_cachectl.entries import values
from dspy_cachectl.errors import CorruptEntryError, FormatVersionError, StoreUnavailableError
from dspy_cachectl.predictions.rows import LONGEST, is_too_large

FORMAT_VERSION = 2
"""Raised when the meaning of a file changes. Newer ones are left alone."""

PLAIN, PACKED = ".json", ".json.zst"

FOLDER = ".dspy_cachectl"
"""The folder beside the snapshots that holds what is none: what is being written, the journal, the lock."""
UNFINISHED = ".tmp"
"""How the name of a file there ends that is being written."""

_METADATA = b'"metadata": {"kind":"dspy_cachectl.predictions",'
HEAD = b"{\n" + _METADATA
"""How each of our files begins."""
# A compressed one has a frame before the others that zstd skips: the mark can be read whatever is damaged behind it.
_PACKED_MARK = b"dspy_cachectl.predictions"
PACKED_HEAD = b"\x50\x2a\x4d\x18" + len(_PACKED_MARK).to_bytes(4, "little") + _PACKED_MARK
_ROWS, _TAIL = b'"predictions": [', b'"metrics": '
_END = b"}}\n}\n"

# A compressed file that unpacks to more is not one of ours.
_MOST_TIMES, _AND_MORE = 200, 64 * 1024 * 1024


class SnapshotReader:
    """A snapshot being read. Its `metadata` is there at once, its `metrics` when all rows were read.

    Attributes:
        metadata: What the rows are predictions of.
        metrics: What was found about them; empty until `rows` has come to its end.
    """

    def __init__(self, path: Path, file: IO[bytes], size: int) -> None:
        self._path = path
        self._file = file
        self._hash = hashlib.sha256()
        self._left = size * _MOST_TIMES + _AND_MORE
        self.metrics: dict[str, Any] = {}
        if self._line() != b"{\n":
            raise self._damaged("it does not begin as a snapshot")
        line = self._line()
        if not (line.startswith(_METADATA) and line.endswith(b",\n")):
            raise self._damaged("its metadata are cut")
        self.metadata = self._loads(b"{" + line[len(_METADATA) : -2])
        version = self.metadata.get("format")
        if not isinstance(version, int):
            raise self._damaged("it has no format version")
        if version > FORMAT_VERSION:
            raise FormatVersionError(
                f"the snapshot {path} has format version {version}; this dspy-cachectl reads up to {FORMAT_VERSION}. "
                "Upgrade dspy-cachectl to read it; it is left as it is"
            )

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
            yield line.rstrip(b",\n")
        self._finish(count)

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
        try:
            line = self._file.readline(LONGEST + 2)
        except zstandard.ZstdError as error:
            raise self._damaged(f"it cannot be decompressed: {error}") from error
        except OSError as error:
            raise StoreUnavailableError(f"the snapshot {self._path} cannot be read: {error}") from error
        self._left -= len(line)
        if is_too_large(line) or self._left < 0:
            raise self._damaged("it holds more than is ever written")
        self._hash.update(line)
        return line

    def _loads(self, text: bytes) -> dict[str, Any]:
        try:
            loaded = values.loads(text, tagged=True)
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
    with contextlib.ExitStack() as opened:
        try:
            file, size = opened.enter_context(_opened(path)), path.stat().st_size
        except OSError as error:
            raise StoreUnavailableError(f"the snapshot {path} cannot be read: {error}") from error
        yield SnapshotReader(path, file, size)


def has_our_head(path: Path) -> bool:
    """Tell whether a file begins as ours do. Nothing else in the folder is ever counted, renamed or removed."""
    head = PACKED_HEAD if PACKED in path.name else HEAD
    try:
        with path.open("rb") as file:
            return file.read(len(head)) == head
    except OSError:
        return False


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        if PACKED not in path.name:
            yield file
        else:
            stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            yield io.BufferedReader(stream, 256 * 1024)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return a snapshot's metadata without reading its rows; unchecked. Raises as `open_snapshot`."""
    with open_snapshot(path) as reader:
        return reader.metadata


def made_folder(root: Path) -> Path:
    """Make a library's folder and the one in it that is ours alone, for their owner alone. Return the inner one.

    Raises:
        StoreUnavailableError: If they cannot be made.
    """
    inner = root / FOLDER
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        inner.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreUnavailableError(f"the folder {inner} cannot be made: {error}") from error
    return inner


def write_snapshot(path: Path, metadata: Mapping[str, Any], rows: Iterable[bytes], metrics: Mapping[str, Any]) -> int:
    """Write a snapshot, wholly or not at all; compressed where the name says so.

    It is made for its owner alone; one that is there keeps its mode.

    Args:
        path: Its name, ending in `.json` or `.json.zst`.
        metadata: What the rows are predictions of.
        rows: The rows, each a line of JSON.
        metrics: What was found about them.

    Returns:
        How many rows there were.

    Raises:
        StoreUnavailableError: If it could not be written. The file that was there is as it was.
        values.UnstorableError: If the metadata or metrics hold something that is not plain.
    """
    head = _line({**metadata, "format": FORMAT_VERSION})
    members = [_member(name, value) for name, value in metrics.items() if name != "file"]
    temporary = made_folder(path.parent) / f"{uuid.uuid4().hex}{UNFINISHED}"
    try:
        temporary.touch(mode=0o600)
        with temporary.open("wb") as file:
            if path.name.endswith(PACKED):
                file.write(PACKED_HEAD)
                with zstandard.ZstdCompressor(level=6).stream_writer(file, closefd=False) as packed:
                    count = _write(packed, head, rows, members)
            else:
                count = _write(file, head, rows, members)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o777)
        temporary.replace(path)
    except OSError as error:
        raise StoreUnavailableError(f"the snapshot {path} cannot be written: {error}") from error
    finally:
        # It has another name by now, or was not finished.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return count


def _write(file: Any, head: bytes, rows: Iterable[bytes], metrics: list[bytes]) -> int:
    hashed = hashlib.sha256()

    def put(data: bytes) -> None:
        hashed.update(data)
        file.write(data)

    put(HEAD + head[1:] + b",\n" + _ROWS)
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
