"""A cassette as a file: JSON lines, a header and then one recording a line, sorted; compressed where it ends in .zst.

A scope whose recording is unfinished has one line more, before its recordings, that says so. Nothing in the file is of
the time at which it was written: what two branches add is merged by version control, and where that leaves a conflict
its marks are known.

Where keys are given a new file is encrypted, line by line but for the header, which says so; one that is there stays as
it is, plain or encrypted.

Whoever has the file may change it, so nothing in it is trusted: lines and files have limits, a key is checked, and
what a line says is data and never the name of a file or of code.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import zstandard

from dspy_cachectl.boundary import encryption
from dspy_cachectl.boundary.ownership import UNFINISHED, is_unfinished_cassette
from dspy_cachectl.boundary.reading import LARGEST_VALUE, MB, LineReader, open_file, padding, parsed
from dspy_cachectl.boundary.writing import write_whole
from dspy_cachectl.config import settings
from dspy_cachectl.context.open_cassette import Recording
from dspy_cachectl.entries import records
from dspy_cachectl.entries.values import UnstorableError
from dspy_cachectl.errors import CorruptEntryError, EncryptedError, FormatVersionError, StoreUnavailableError

FORMAT = 3
LARGEST_LINE = LARGEST_VALUE + MB
LARGEST_FILE = 512 * MB
"""Limits of what is read, in bytes, after decompression."""

_ABOUT = b"recording"
_SHORTEST_RECORDING = 150
_MOST_SHORT_LINES = 1000
"""A header, blank lines and damaged ones are short; more of them is a bomb that costs time."""

_LONGEST_MARK = 1000
_KEY = re.compile(r"[0-9a-f]{64}")
_CONFLICT_MARK = re.compile(rb"(<{7,}|\|{7,}|={7,}|>{7,})( .*)?")
_VOLATILE = frozenset(
    {"created", "created_at", "completed_at", "id", "item_id", "response_ids", "seconds", "system_fingerprint"}
)
"""What differs between two recordings of the same answer."""

_WHOLE = frozenset({"args", "arguments", "input", "result"})
"""What a tool is called with, and what it returns: an answer with another `id` in there is another answer."""


@dataclass(frozen=True)
class CassetteFile:
    """What a cassette's file holds.

    Attributes:
        keys: `"cassette"` where it was recorded as one, `"store"` where it was exported from a store.
        recordings: Its recordings, by key.
        lines: Its lines as they are written, by key.
        unfinished: The scopes whose recording was cut short.
        conflict: The first line that has a mark of a conflict; 0 where none has. Both sides are read then.
        is_encrypted: Whether its lines are encrypted. None: there is no file, and the settings say it.
    """

    keys: str = "cassette"
    recordings: Mapping[str, Recording] = field(default_factory=dict)
    lines: Mapping[str, bytes] = field(default_factory=dict)
    unfinished: frozenset[str] = frozenset()
    conflict: int = 0
    is_encrypted: bool | None = None


def read(path: Path, *, both_sides: bool = False) -> CassetteFile:
    """Read a cassette.

    Args:
        path: The file.
        both_sides: Whether to read both sides of a conflict that version control left, in place of refusing it.

    Raises:
        StoreUnavailableError: If the file cannot be read.
        CorruptEntryError: If it is not a cassette, or damaged; the message names the line.
        FormatVersionError: If another version of this package wrote it.
    """
    recordings: dict[str, Recording] = {}
    lines: dict[str, bytes] = {}
    unfinished = set()
    marks: list[int] | None = [] if both_sides else None
    header, numbered = read_header(path, marks)
    for number, line in numbered:
        try:
            scope = unfinished_scope(line)
            if scope is not None:
                unfinished.add(scope)
                continue
            recording = from_line(line)
        except CorruptEntryError as error:
            raise CorruptEntryError(f"{path}, line {number}: {error}. Restore the file, or record it anew") from error
        recordings[recording.key], lines[recording.key] = recording, line
    conflict = marks[0] if marks else 0
    return CassetteFile(header.keys, recordings, lines, frozenset(unfinished), conflict, header.is_encrypted)


def write(
    path: Path, recordings: Iterable[Recording], *, before: CassetteFile, unfinished: Collection[str] = ()
) -> None:
    """Write a cassette in place of what is there. Nobody sees half of it.

    A recording whose answer is the same as before keeps its line, and the header never changes: what version control
    shows is what changed, and it can merge what two branches recorded.

    Args:
        path: The file; its folder is made where it is missing.
        recordings: What is to be in it.
        before: What is there now; one without recordings where there is no file.
        unfinished: The scopes whose recording was cut short.

    Raises:
        StoreUnavailableError: If it cannot be written, or would be larger than what is read.
    """
    content = content_of(path, recordings, before=before, unfinished=unfinished)
    if content is not None:
        _sweep(path)
        write_whole(path, content, what="the cassette")


def content_of(
    path: Path, recordings: Iterable[Recording], *, before: CassetteFile, unfinished: Collection[str] = ()
) -> bytes | None:
    """Return what `write` writes to a file, None where that is there already. Raises as `write` does."""
    lines: dict[str, bytes] = {}
    for recording in recordings:
        line, old = to_line(recording), before.lines.get(recording.key)
        lines[recording.key] = old if old is not None and _is_same(old, line) else line
    if lines and lines == before.lines and not before.conflict and before.unfinished == {*unfinished}:
        return None
    marks = [orjson.dumps({"unfinished": True, **({"scope": scope} if scope else {})}) for scope in unfinished]
    content = _as_written(before, sorted([*lines.values(), *marks], key=_place_in_file))
    if len(content) > LARGEST_FILE:
        raise StoreUnavailableError(
            f"the cassette {path} would be {len(content)} bytes long, and no more than {LARGEST_FILE} are read; "
            "make several of it"
        )
    if path.suffix == ".zst":
        size = len(content)
        content = zstandard.ZstdCompressor(level=9).compress(content)
        content += padding(unpacked_bytes=size, lines=len(lines) + 1, packed_bytes=len(content))
    return content


def _as_written(before: CassetteFile, lines: Sequence[bytes]) -> bytes:
    header, keys = {"cassette": FORMAT, "keys": before.keys}, settings().encryption_key
    if before.is_encrypted is not False and keys is not None:
        header["encrypted"] = True
        lines = [encryption.seal_line(keys, line, _ABOUT) for line in lines]
    return b"".join(line + b"\n" for line in [orjson.dumps(header), *lines])


def to_line(recording: Recording) -> bytes:
    """Return a recording as a line of JSON, without its end.

    Raises:
        UnstorableError: If the line is longer than what is read.
    """
    origin, answer, tagged, request = records.take_apart(recording.data)
    defaults = {item.name: item.default for item in fields(records.Origin)}
    line = {
        **({"scope": recording.scope} if recording.scope else {}),
        "key": recording.key,
        "asked": recording.asked,
        "origin": {name: value for name, value in origin.items() if value != defaults.get(name) and value != []},
        "request": request,
        "answer": answer,
        **({"tagged": True} if tagged else {}),
    }
    written = orjson.dumps(line)
    if len(written) > LARGEST_LINE:
        raise UnstorableError(f"an answer of {len(written)} bytes is too large for a cassette; {LARGEST_LINE} fit in")
    return written


def from_line(line: bytes) -> Recording:
    """Return the recording that a line holds.

    Raises:
        CorruptEntryError: If it holds none.
    """
    if line.startswith(encryption.SEALED):
        raise CorruptEntryError("the line was changed after it was encrypted")
    parts = parsed(line)
    if not isinstance(parts, dict) or not {"key", "asked", "origin", "answer"} <= parts.keys():
        raise CorruptEntryError("the line is no recording: it needs key, asked, origin and answer")
    key, asked, request = parts["key"], parts["asked"], parts.get("request") or {}
    scope = parts.get("scope", "")
    for name, value in (("key", key), ("asked", asked)):
        if not (isinstance(value, str) and _KEY.fullmatch(value)):
            raise CorruptEntryError(f"its {name} is not 64 hexadecimal digits")
    if not isinstance(parts["origin"], dict) or not isinstance(request, dict):
        raise CorruptEntryError("its origin and its request have to be objects")
    if not isinstance(scope, str):
        raise CorruptEntryError("its scope is no text")
    tagged = parts.get("tagged") is True
    try:
        data = records.put_together(parts["origin"], parts["answer"], tagged=tagged, request=request)
    except TypeError as error:  # it was JSON, so only its depth and its size can be wrong
        raise CorruptEntryError(f"it is nested too deeply, or too large: {error}") from error
    return Recording(key, asked, data, scope)


def unfinished_scope(line: bytes) -> str | None:
    """Return the scope of which a line says that its recording is unfinished; None where it is a recording's line.

    Raises:
        CorruptEntryError: If it is neither.
    """
    if b'"answer"' in line or b'"unfinished"' not in line:
        return None
    parts = parsed(line)
    scope = parts.get("scope", "") if isinstance(parts, dict) and parts.get("unfinished") is True else None
    return scope if isinstance(scope, str) else None


def _sweep(path: Path) -> None:
    """Remove what a process left that was killed while it wrote; a file that only has such a name stays."""
    target = Path(os.path.realpath(path))
    try:
        for left in target.parent.glob(f".{glob.escape(target.name)}.????????{UNFINISHED}"):
            if is_unfinished_cassette(left, of=target):
                left.unlink(missing_ok=True)
    except OSError as error:
        raise StoreUnavailableError(f"the cassette {path} cannot be written: {error}") from error


def _place_in_file(line: bytes) -> tuple[str, ...]:
    # Recordings of like requests stay together: a changed prompt moves its line no further than need be.
    parts = orjson.loads(line)
    if "unfinished" in parts:
        return (parts.get("scope", ""),)
    origin, request = parts["origin"], parts["request"]
    content = orjson.dumps(request.get("request"), option=orjson.OPT_SORT_KEYS).decode()
    ordinal = origin.get("ordinal")
    return (
        parts.get("scope", ""),
        str(origin.get("kind", "")),
        str(origin.get("model", "")),
        content,
        str(origin.get("run_id") or ""),
        f"{ordinal:09d}" if isinstance(ordinal, int) else "",
        parts["key"],
    )


def _is_same(line: bytes, other: bytes) -> bool:
    return bool(_lasting(orjson.loads(line)) == _lasting(orjson.loads(other)))


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: item if name in _WHOLE else _lasting(item) for name, item in value.items() if name not in _VOLATILE
        }
    if isinstance(value, list):
        return [_lasting(item) for item in value]
    return value


def check_not_newer(path: Path) -> None:
    """Look at what is to be written over.

    Raises:
        FormatVersionError: If it is a cassette that another version of this package wrote.
    """
    with contextlib.suppress(CorruptEntryError, StoreUnavailableError):  # it is no cassette, or not there
        read_header(path, [])


class Header(NamedTuple):
    """What the first line of a cassette says: see `CassetteFile`."""

    keys: str
    is_encrypted: bool


def read_header(path: Path, marks: list[int] | None = None) -> tuple[Header, Iterator[tuple[int, bytes]]]:
    """Return what the first line of a cassette says, and its other lines, in the clear.

    Args:
        path: The file.
        marks: Takes the numbers of the lines with which version control marked a conflict, and the lines of both sides
            are given. None: such a file is refused.

    Raises:
        StoreUnavailableError: If the file cannot be read.
        CorruptEntryError: If it is empty, or its first line is no header, or it holds a conflict.
        FormatVersionError: If another version of this package wrote it.
        EncryptedError: If it is encrypted, and its key is not given; of a line that is when it is read.
    """
    lines = _without_conflicts(path, marks)
    _, line = next(lines, (0, b""))
    if not line:
        raise CorruptEntryError(f"{path} is empty; a cassette begins with a header. Delete it to record it anew")
    header = _header_of(path, line)
    if header.is_encrypted and settings().encryption_key is None:
        raise EncryptedError(f"the cassette {path} cannot be read: {encryption.not_given(None, None)}")
    return header, _opened(path, lines) if header.is_encrypted else lines


def _opened(path: Path, lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    for number, line in lines:
        try:
            yield number, encryption.open_line(settings().encryption_key, line, _ABOUT)
        except EncryptedError as error:
            raise EncryptedError(f"{path}, line {number}: {error}") from error
        except CorruptEntryError:
            yield number, line  # who reads it says so


def _header_of(path: Path, header: bytes) -> Header:
    try:
        facts = parsed(header.removeprefix(b"\xef\xbb\xbf"))  # an editor puts it there
        version = facts["cassette"]
    except (CorruptEntryError, KeyError, TypeError) as error:
        raise CorruptEntryError(f"{path} is not a cassette: its first line is no header") from error
    if type(version) is not int or version < 1:
        raise CorruptEntryError(f"{path} is not a cassette: it claims the format {version!r}")
    if version > FORMAT:
        raise FormatVersionError(
            f"{path} has the cassette format {version}; this dspy-cachectl reads up to {FORMAT}. "
            "Upgrade dspy-cachectl to read it; it is left as it is"
        )
    if version < FORMAT:
        raise FormatVersionError(
            f"{path} was written by an older dspy-cachectl (cassette format {version}), under keys that\n"
            "are made in another way now. It is left as it is: delete it to record it anew"
        )
    keys = facts.get("keys", "cassette")
    if keys in ("cassette", "store"):
        return Header(keys, facts.get("encrypted") is True)
    raise CorruptEntryError(f"{path} is not a cassette: its keys are those of {keys!r}")


def _without_conflicts(path: Path, marks: list[int] | None) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a cassette; of a conflict those of both sides, without what both have changed."""
    is_common = False
    for number, line in read_lines(path):
        if _CONFLICT_MARK.fullmatch(line) is None:
            # Where the header is in a conflict, each side has one.
            if not is_common and not (marks and line.startswith(b'{"cassette"') and number > marks[0] + 1):
                yield number, line
            continue
        if marks is None:
            raise CorruptEntryError(
                f"{path}, line {number}: version control left a conflict here ({line[:20].decode(errors='replace')}). "
                'Keep the lines of both sides and delete its marks, or record in the mode "all" '
                "(--cachectl=all), which does that"
            )
        marks.append(number)
        is_common = line.startswith(b"|")


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a cassette with their numbers, from 1, and without their ends; blank ones are passed over.

    Raises:
        StoreUnavailableError: If the file cannot be read.
        CorruptEntryError: If a line or the whole is too long to be a cassette's, or cannot be decompressed.
    """
    short = 0
    packed = path.suffix == ".zst"
    if packed and _is_marked(path):
        raise CorruptEntryError(
            f"the cassette {path} cannot be decompressed: version control tried to merge it, as it cannot what is "
            "compressed. Take one side, and record what the other had"
        )
    with LineReader(
        path, what="the cassette", packed=packed, longest=encryption.sealed_length(LARGEST_LINE), most=LARGEST_FILE
    ) as reader:
        while line := reader.line():
            short += len(line) < _SHORTEST_RECORDING
            if short > _MOST_SHORT_LINES:
                raise CorruptEntryError(
                    f"{path}, line {reader.number}: it is too short for a recording, as are {_MOST_SHORT_LINES} lines "
                    "before it; no cassette is like that"
                )
            if line.strip():
                yield reader.number, line.rstrip(b"\r\n")


def _is_marked(path: Path) -> bool:
    """Tell whether a compressed file begins with a mark of a conflict."""
    with open_file(path, what="the cassette") as file:
        return _CONFLICT_MARK.fullmatch(file.readline(_LONGEST_MARK).rstrip()) is not None
