"""Reading within limits: whoever wrote a file may have meant harm, and it must neither fill the memory nor take long.

What is read is a regular file. Lines have a longest length, whole files a largest size, what is compressed unpacks to
so many times its size and no more, and JSON becomes so many values and no more. Who writes keeps to the same limits, so
what was written can be read.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import threading
from pathlib import Path
from typing import IO, Any

import orjson

from dspy_cachectl.boundary.ownership import open_regular
from dspy_cachectl.errors import ConfigurationError, CorruptEntryError, StoreUnavailableError

MB = 1024 * 1024

LARGEST_VALUE = 13 * MB
"""How many bytes one value may have, unpacked: an entry, a line, a block. As a text of Python it may take four times
as many."""

MOST_VALUES = 1_000_000
_CONTAINER = 4
"""How many values a text of JSON may hold, and how many of them a list or an object counts for: each takes far more
memory than the two bytes that it is written with."""

MOST_TIMES, AND_MORE = 64, 32 * MB
"""What is compressed unpacks to so many times its size, and so many bytes more; `padding` sees to it."""
EACH_LINE = 1024
"""How many bytes a line counts for beside its own: it becomes objects, and they take time and memory."""

_LARGEST_WINDOW = 8 * MB
"""How much memory zstd may take to unpack a file, in bytes; what this package writes takes a quarter."""
_LONGEST_FRAME_HEADER = 18

_DEEPEST_WRITTEN = 250
"""How deep JSON is nested that can be written, at least."""

_LONG_NUMBER = re.compile(rb"0[xob][0-9a-fA-F_]{3000}")
"""A number that Python reads, and refuses to write out in a message."""
_TEXT = re.compile(rb'"[^"]*"?')

_LOCAL = threading.local()  # one for each thread: a decompressor may not be shared

_LARGEST_JSON = 512 * MB
_LARGEST_TOML = 1 * MB
_MOST_KEYS, _LONGEST_KEY = 30_000, 500
"""How many tables, lists and parts of keys settings may have, and how many of the latter in a line: a dotted key takes
time and memory with the square of its parts."""


def no_path(path: str | os.PathLike[str]) -> str:
    """Return why no system takes a text as a path, whatever is on its disk; "" where it may be one."""
    try:
        return "there is a NUL in it" if b"\0" in os.fsencode(path) else ""
    except UnicodeError:
        return "there is half a character in it"


def parsed(data: bytes | str) -> Any:
    """Return what a text of JSON holds.

    Raises:
        CorruptEntryError: If it is none, is nested more deeply than anything that is written, or holds more values than
            that: they would fill the memory.
    """
    encoded = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    if holds_too_many(encoded):
        raise CorruptEntryError(f"the JSON cannot be decoded: it holds more than {MOST_VALUES:,} values")
    try:
        value = orjson.loads(encoded)
    except ValueError as error:
        raise CorruptEntryError(f"the JSON cannot be decoded: {error}") from error
    if len(encoded) < 2 * _DEEPEST_WRITTEN or encoded.count(b"[") + encoded.count(b"{") < _DEEPEST_WRITTEN:
        return value
    try:
        # It reads four times as deep as it writes, and whoever walks the value would run out of stack. This takes less
        # time than looking at the value.
        orjson.dumps(value)
    except TypeError as error:
        raise CorruptEntryError("the JSON cannot be decoded: it is nested more deeply than what is written") from error
    return value


def read_json(path: Path, *, what: str) -> Any:
    """Return what a file of JSON holds, with all that Python's own reader takes: NaN, and half a character.

    Args:
        path: The file; `-` is standard input.
        what: What it is, for the error.

    Raises:
        CorruptEntryError: If it is no JSON, nested too deeply, or too large.
        StoreUnavailableError: If it cannot be read.
    """
    try:
        # What is not compressed becomes some tens of times its size at most.
        return json.loads(read_file(path, what=what, most=_LARGEST_JSON))
    except (ValueError, RecursionError) as error:
        raise CorruptEntryError(f"{what} {path} cannot be read as JSON: {error}") from error


def holds_too_many(data: bytes) -> bool:
    """Tell whether a text of JSON holds more values than are read."""
    if len(data) * _CONTAINER < MOST_VALUES or _weight(data) <= MOST_VALUES:
        return False
    # What stands in texts is no value. Escapes first, so that each quotation mark that is left begins or ends a text.
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    weight, is_in_text = 0, False
    for start in range(0, len(bare), MB):
        piece = bare[start : start + MB]
        weight += _weight(_TEXT.sub(b"", b'"' + piece if is_in_text else piece))
        if weight > MOST_VALUES:
            return True
        is_in_text ^= bool(piece.count(b'"') % 2)
    return False


def _weight(data: bytes) -> int:
    return data.count(b",") + _CONTAINER * (data.count(b"[") + data.count(b"{"))


def unpacked(data: bytes) -> bytes:
    """Return what one frame of zstd holds that says how much that is.

    Raises:
        CorruptEntryError: If it does not say so, says that it is more than `LARGEST_VALUE`, holds more than it says, or
            is damaged.
    """
    import zstandard

    size = unpacked_size(data)
    if size > LARGEST_VALUE:
        raise CorruptEntryError(f"a compressed part claims {size:,} bytes, and no more than {LARGEST_VALUE:,} are read")
    try:
        if not hasattr(_LOCAL, "decompressor"):
            _LOCAL.decompressor = zstandard.ZstdDecompressor()
        content: bytes = _LOCAL.decompressor.decompress(data)
    except zstandard.ZstdError as error:
        raise CorruptEntryError(f"a part cannot be decompressed: {error}") from error
    return content


def unpacked_size(data: bytes) -> int:
    """Return how many bytes one frame of zstd says that it holds.

    Raises:
        CorruptEntryError: If it does not say so, or is no frame.
    """
    import zstandard

    try:
        size: int = zstandard.frame_content_size(data)
    except zstandard.ZstdError as error:
        raise CorruptEntryError(f"a part cannot be decompressed: {error}") from error
    if size < 0:
        raise CorruptEntryError("a compressed part does not say how many bytes it holds; one that is written does")
    return size


def open_file(path: Path, *, what: str) -> IO[bytes]:
    """Open a regular file for reading. Nothing else is waited for.

    Args:
        path: The file.
        what: What it is, for the error.

    Raises:
        StoreUnavailableError: If it cannot be read, or is a folder, a pipe or a device.
    """
    try:
        return open_regular(path)
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise StoreUnavailableError(f"{what} {path} cannot be read: {error}") from error


def read_file(path: Path, *, what: str, most: int = LARGEST_VALUE) -> bytes:
    """Return the content of a regular file.

    Args:
        path: The file; `-` is standard input.
        what: What it is, for the error.
        most: How many bytes it may have.

    Raises:
        CorruptEntryError: If it is larger.
        StoreUnavailableError: If it cannot be read.
    """
    # A process without a terminal may have no standard input, and one may be replaced: only who asks for it needs it.
    given = getattr(sys.stdin, "buffer", None) if str(path) == "-" else None
    with open_file(path, what=what) if given is None else contextlib.nullcontext(given) as file:
        try:
            data = file.read(most + 1)
        except OSError as error:
            raise StoreUnavailableError(f"{what} {path} cannot be read: {error}") from error
    if len(data) > most:
        raise CorruptEntryError(f"{what} {path} is longer than {most:,} bytes, and no more are read")
    return data


class LineReader:
    """The lines of a file, plain or compressed with zstd, one at a time. Close it by leaving its block.

    Args:
        path: The file.
        what: What it is, for errors.
        packed: Whether it is compressed.
        longest: How many bytes a line may have, without its end.
        most: How many bytes all of them may have; None for what the file's size allows.

    Raises:
        StoreUnavailableError: If it cannot be read, or is no regular file.

    Attributes:
        number: How many lines were read.
        total: How many bytes, unpacked.
    """

    def __init__(
        self, path: Path, *, what: str, packed: bool = False, longest: int = LARGEST_VALUE, most: int | None = None
    ) -> None:
        self._named = f"{what} {path}"
        self._longest = longest
        self.number = self.total = self._claimed = 0
        file = open_file(path, what=what)
        size = os.fstat(file.fileno()).st_size
        # A line of a file that is not compressed has some bytes, so this limits only what is.
        self._left = size * MOST_TIMES + AND_MORE
        self._most = sys.maxsize if most is None else most
        self._file = self._unpacking(file) if packed else file

    def __enter__(self) -> LineReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def line(self) -> bytes:
        """Return the next line with its end, or nothing where there is none.

        Raises:
            CorruptEntryError: If it is too long, there is more than the file can be believed, or it cannot be unpacked.
            StoreUnavailableError: If it cannot be read.
        """
        import zstandard

        try:
            line = self._file.readline(self._longest + 2)
        except zstandard.ZstdError as error:
            raise CorruptEntryError(f"{self._named} cannot be decompressed: {error}") from error
        except OSError as error:
            raise StoreUnavailableError(f"{self._named} cannot be read: {error}") from error
        self.number += bool(line)
        self.total += len(line)
        self._left -= len(line) + EACH_LINE
        problem = self._problem(line)
        if problem:
            raise CorruptEntryError(f"{self._named}, line {self.number}: {problem}")
        return line

    def _problem(self, line: bytes) -> str:
        if len(line.rstrip(b"\r\n")) > self._longest:
            return f"the line is longer than {self._longest:,} bytes; none that is written is"
        if self.total > self._most:
            return f"the file is longer than {self._most:,} bytes, which is more than is read"
        if self._left < 0:
            return "the file holds more, or more lines, than one of its size ever does"
        if not line and self.total < self._claimed:
            # The decompressor takes the end of the file for the end of what is in it.
            return "the file was cut short"
        return ""

    def _unpacking(self, file: IO[bytes]) -> IO[bytes]:
        import zstandard

        with contextlib.suppress(zstandard.ZstdError):
            self._claimed = max(zstandard.frame_content_size(file.read(_LONGEST_FRAME_HEADER)), 0)
        file.seek(0)
        decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
        # Closes all of them.
        return io.BufferedReader(decompressor.stream_reader(file, read_across_frames=True))


def padding(*, unpacked_bytes: int, lines: int, packed_bytes: int) -> bytes:
    """Return what has to follow a compressed file, so that it is believed to hold as much as it does.

    Texts that are alike in each line are packed better than a reader believes of a stranger's file.

    Args:
        unpacked_bytes: How much is in it.
        lines: In how many lines.
        packed_bytes: How large it is.
    """
    missing = -(-(unpacked_bytes + (lines + 1) * EACH_LINE - AND_MORE) // MOST_TIMES) - packed_bytes
    # A frame that zstd passes over.
    return b"\x50\x2a\x4d\x18" + missing.to_bytes(4, "little") + bytes(missing) if missing > 0 else b""


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a file of settings holds.

    Raises:
        ConfigurationError: If it cannot be read; the message names it.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        data = read_file(path, what="the file of settings", most=_LARGEST_TOML)
        _check_toml(data, path)
        return tomllib.loads(_text_of(data))
    except (CorruptEntryError, StoreUnavailableError) as error:
        raise ConfigurationError(f"the settings cannot be read: {error}") from error
    except RecursionError as error:
        raise ConfigurationError(f"the settings in {path} cannot be read: they are nested too deeply") from error
    except ValueError as error:
        is_syntax = isinstance(error, (tomllib.TOMLDecodeError, UnicodeError))
        reason = error if is_syntax else "a number in them has too many digits"
        raise ConfigurationError(f"the settings in {path} cannot be read: {reason}") from error


def _text_of(data: bytes) -> str:
    """Return the text of a file that people write: an editor may have put a mark before it, or chosen UTF-16."""
    try:
        if b"\0" not in data:
            return data.decode("utf-8-sig")
        reason = "there is a NUL in it"
    except UnicodeDecodeError as error:
        reason = f"{error.reason}, at byte {error.start}"
    raise UnicodeError(f"the file is not in UTF-8 ({reason}); save it as UTF-8")


def _check_toml(data: bytes, path: Path) -> None:
    dots = max((line.count(b".") for line in data.splitlines()), default=0)
    if dots > _LONGEST_KEY or sum(map(data.count, b".[{")) > _MOST_KEYS:
        raise CorruptEntryError(f"{path} has more tables, lists and parts of keys than are read")
    if _LONG_NUMBER.search(data):
        raise CorruptEntryError(f"{path} has a number of thousands of digits")
