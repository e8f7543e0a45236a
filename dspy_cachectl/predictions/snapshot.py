"""The file of a snapshot: JSON that `json.load` reads, and that can be read one row at a time.

```
{
"metadata": {...},
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

FORMAT_VERSION = 1
"""Raised when the meaning of a file changes. Older ones are read, newer ones are left alone."""

PLAIN, PACKED = ".json", ".json.zst"
UNFINISHED = ".tmp"
"""How the name of a snapshot ends that is being written."""

_HEAD, _ROWS, _TAIL = b'"metadata": ', b'"predictions": [', b'"metrics": '
_END = b"}}\n}\n"
_LONGEST_METADATA = 64 * 1024 * 1024


class SnapshotReader:
    """A snapshot being read. Its `metadata` is there at once, its `metrics` when all rows were read.

    Attributes:
        metadata: What the rows are predictions of.
        metrics: What was found about them; empty until `rows` has come to its end.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file
        self._hash = hashlib.sha256()
        self.metrics: dict[str, Any] = {}
        if self._line(16) != b"{\n":
            raise self._damaged("it does not begin as a snapshot")
        line = self._line(_LONGEST_METADATA)
        if not (line.startswith(_HEAD) and line.endswith(b",\n")):
            raise self._damaged("its metadata are cut")
        self.metadata = self._loads(line[len(_HEAD) : -2])
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
        line = self._line() + self._line() + self._line(1)
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

    def _line(self, limit: int = -1) -> bytes:
        try:
            line = self._file.readline(limit)
        except zstandard.ZstdError as error:
            raise self._damaged(f"it cannot be decompressed: {error}") from error
        except OSError as error:
            raise StoreUnavailableError(f"the snapshot {self._path} cannot be read: {error}") from error
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
            file: IO[bytes] = opened.enter_context(path.open("rb"))
        except OSError as error:
            raise StoreUnavailableError(f"the snapshot {path} cannot be read: {error}") from error
        if path.name.endswith(PACKED):
            stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            file = io.BufferedReader(stream, 256 * 1024)
        yield SnapshotReader(path, file)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return a snapshot's metadata without reading its rows; unchecked. Raises as `open_snapshot`."""
    with open_snapshot(path) as reader:
        return reader.metadata


def write_snapshot(path: Path, metadata: Mapping[str, Any], rows: Iterable[bytes], metrics: Mapping[str, Any]) -> int:
    """Write a snapshot, wholly or not at all; compressed where the name says so.

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
    head = values.dumps({**metadata, "format": FORMAT_VERSION})[0]
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            if path.name.endswith(PACKED):
                with zstandard.ZstdCompressor(level=6).stream_writer(file, closefd=False) as packed:
                    count = _write(packed, head, rows, metrics)
            else:
                count = _write(file, head, rows, metrics)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StoreUnavailableError(f"the snapshot {path} cannot be written: {error}") from error
    finally:
        # It has another name by now, or was not finished.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return count


def _write(file: Any, head: bytes, rows: Iterable[bytes], metrics: Mapping[str, Any]) -> int:
    hashed = hashlib.sha256()

    def put(data: bytes) -> None:
        hashed.update(data)
        file.write(data)

    put(b"{\n" + _HEAD + head + b",\n" + _ROWS)
    count = 0
    for count, row in enumerate(rows, start=1):
        put(b",\n" + row if count > 1 else b"\n" + row)
    put(b"\n],\n")
    found = [_member(name, value) for name, value in metrics.items() if name != "file"]
    tail = b"{" + b",".join([*found, b'"file":' + orjson.dumps({"rows": count})[:-1]])
    put(_TAIL + tail)
    file.write(_seal(hashed))
    return count


def _member(name: str, value: Any) -> bytes:
    if name == values.TAG:
        raise values.UnstorableError(f"a metric cannot be called {name!r}")
    return orjson.dumps(name) + b":" + values.dumps(value)[0]


def _seal(hashed: Any) -> bytes:
    return f',"sha256":"{hashed.hexdigest()}"'.encode() + _END
