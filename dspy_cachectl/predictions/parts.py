"""A library in an object store: immutable parts that are snapshots, and an index that lists them.

```
PREFIX/index.json.zst                      the parts, what each says of itself, and which have been replaced
PREFIX/SLUG_HASH/RUN/SHA256.json.zst       a part: a whole snapshot, named by its bytes
```

Snapshots are written to a folder of this machine as ever, and sent from there in the background. A part is never
written over, so nobody reads half of one, and what several writers found is the union of their parts.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import zstandard

from dspy_cachectl.boundary import ownership
from dspy_cachectl.boundary.ages import age_of
from dspy_cachectl.boundary.reading import LARGEST_VALUE, parsed, read_file, unpacked
from dspy_cachectl.boundary.writing import write_whole
from dspy_cachectl.config import mirror_of, settings
from dspy_cachectl.errors import CorruptEntryError, FormatVersionError, StoreError
from dspy_cachectl.predictions import snapshot
from dspy_cachectl.predictions.files import SnapshotFiles, say
from dspy_cachectl.predictions.growing import Growth
from dspy_cachectl.predictions.kept_rows import KeptRows
from dspy_cachectl.predictions.sending import Sender
from dspy_cachectl.predictions.snapshot import FOLDER, SnapshotInfo
from dspy_cachectl.stores.objects import ObjectStore

INDEX = "index.json.zst"
FORMAT_VERSION = 1
"""Of the index. Raised when its meaning changes; a newer one is left alone."""

_LARGEST_PART = 2 * 1024**3
_GRACE = 86400.0
"""How long a part stays that others have replaced, for who reads by an older index; in seconds."""

_PART = re.compile(
    r"(?P<stem>[a-z0-9-]{1,60}_[0-9a-f]{16}(?:-\d+)?)/[\w.-]{1,80}/(?P<hash>[0-9a-f]{64})\.json\.zst", re.ASCII
)
_UNTOLD = frozenset({"program_text", "versions"})
"""What of a snapshot's metadata is not needed to choose one."""

Index = dict[str, dict[str, Any]]
"""By "parts" what is known of each, and by "replaced" when each was, in Unix seconds."""


class PartFiles(SnapshotFiles):
    """The files of a library in an object store, beside those of its folder on this machine.

    Args:
        address: `s3://bucket/prefix`, and likewise `gs://` and `az://`.
        sets_aside: See `SnapshotFiles`.

    Raises:
        ConfigurationError: If the address cannot be used.
        MissingExtraError: If the package for object stores is not installed.
    """

    def __init__(self, address: str, *, sets_aside: bool = True) -> None:
        self.objects = ObjectStore(address)
        super().__init__(mirror_of(self.objects.address, settings().state), sets_aside=sets_aside)
        self.shown = self.objects.address
        self._index: Index = {"parts": {}, "replaced": {}}

    def snapshots(self) -> list[SnapshotInfo]:
        """Return the parts, and the snapshots that are on their way, the newest first."""
        waits = self.waiting()  # before the index is read: what is sent meanwhile is in one of the two
        waiting = [info for info in super().snapshots() if info.path.name in waits]
        self._index = self._read_index()
        parts = (self._info(name, about) for name, about in self._index["parts"].items())
        return sorted((*waiting, *(info for info in parts if info)), key=lambda info: -info.recency)

    def is_here(self, info: SnapshotInfo) -> bool:
        """See `SnapshotFiles`; a part is fetched once."""
        try:
            if info.part is not None and not info.path.exists():
                self.fetch(info.part)
        except StoreError as error:
            say(info.path, f"{error}; it is left out")
            return False
        return True

    def is_there(self) -> bool:
        """See `SnapshotFiles`."""
        return True

    def earlier(self, path: Path) -> Iterator[tuple[Path, list[str]]]:
        """See `SnapshotFiles`: what waits here, and the parts of that name that were fetched."""
        if path.name in self.waiting():
            with contextlib.suppress(StoreError):
                replaces = snapshot.read_info(path).metadata.get("replaces", [])
                yield path, [str(name) for name in replaces]
        for part, about in self._index["parts"].items():
            here = self._place(part)
            if about["metadata"].get("file") == path.name and here.exists():
                yield here, [part]

    def to_check(self) -> Iterator[tuple[Path, str | None]]:
        """See `SnapshotFiles`. Raises `StoreUnavailableError`: what cannot be read is not checked."""
        self.ask()
        self._index = self._read_index()
        return ((self._place(part), part) for part in sorted(self._index["parts"]))

    def to_rewrite(self) -> Iterator[tuple[Path, Path, list[str]]]:
        """See `SnapshotFiles`. What waits here goes on waiting."""
        for path in list(self.files()):
            was_sent = self._is_sent(path)
            yield path, path, []
            if was_sent:
                self._mark_sent(path, _stamp(path))

    def parts_to_rewrite(self) -> Iterator[tuple[Path, Path, list[str]]]:
        """See `SnapshotFiles`. Raises the `StoreError` family."""
        for path, part in [(path, str(part)) for path, part in self.to_check()]:
            with contextlib.suppress(CorruptEntryError):  # then it is not there to be read, or whole here
                self.fetch(part)
            with tempfile.TemporaryDirectory(prefix="dspy-cachectl-") as folder:
                new = Path(folder) / path.name
                yield path, new, [part]
                if new.exists():
                    self._add(*_read(new))
        self._forget_copies()

    def usage(self) -> int:
        """Return how many bytes the parts take up, as far as is known."""
        return sum(about["bytes"] for about in self._index["parts"].values())

    def removable(self) -> Iterator[Path]:
        """See `SnapshotFiles`."""
        yield from (info.path for info in self.snapshots())

    def remove(self, paths: Iterable[Path]) -> list[Path]:
        """Remove parts, and what waits here. Return those that went. Raises `StoreUnavailableError`."""
        paths, self._index = list(paths), self._read_index()
        by_path = {self._place(part): part for part in self._index["parts"]}
        parts = {by_path[path] for path in paths if path in by_path}
        if parts:
            self._change(lambda index: {**index, "parts": _without(index["parts"], parts)})
            self.objects.remove(sorted(parts))
        sent = [self.root / path.name for path in paths]
        super().remove({*paths, *sent})
        return paths

    def over_limits(self, used: set[str], *, max_age: float, max_bytes: int) -> list[Path]:  # noqa: ARG002
        """Return nothing: in a bucket that others use, its rules remove, or somebody who says so."""
        return []

    def written(self) -> None:
        """Send what waits, in the background."""
        if self.waiting():
            Sender.of(self.shown).start(self.send)

    def growth_of(self, header: Callable[[], dict[str, Any]], rows: KeptRows) -> Growth:
        """See `SnapshotFiles`."""
        apart = PartFiles(self.shown)  # what this one knows is another thread's

        def failed(error: Exception) -> None:
            say(self.root, f"{error}. What is found stays on this machine until the evaluation ends")

        return Growth(header, rows, lambda path: apart._add(*_read(path)), failed)

    def wait(self, limit: float) -> int:
        """Wait until everything is sent, so many seconds at most. Return how many snapshots still wait."""
        Sender.of(self.shown).wait(limit)
        return len(self.waiting())

    def ask(self) -> None:
        """See `SnapshotFiles`."""
        self.objects.read(INDEX, most=LARGEST_VALUE)

    def waiting(self) -> list[str]:
        """Return the names of the snapshots that are not sent as they are now."""
        return [path.name for path in self.files() if not self._is_sent(path)]

    def send(self) -> int:
        """Send what waits. Return how many snapshots still wait; why is said once."""
        for name in self.waiting():
            try:
                self._send(self.root / name)
            except (StoreError, OSError) as error:
                say(self.root, f"{error}. The predictions stay in {self.root}, and go up with the next evaluation")
                break
        self._forget_copies()
        return len(self.waiting())

    def _forget_copies(self) -> None:
        """Remove what is here of parts that the index does not list any more."""
        listed = {self._place(part).parent.name for part in self._index["parts"]}
        with contextlib.suppress(OSError):
            for copy in (self.root / FOLDER / "parts").glob("*/*"):
                if copy.parent.name not in listed:
                    copy.unlink()
                    copy.parent.rmdir()

    def _send(self, path: Path) -> None:
        before = _stamp(path)
        data, info = _read(path)
        if _stamp(path) == before:  # otherwise written anew meanwhile: the next sending has it
            self._add(data, info)
            self._mark_sent(path, before)

    def _add(self, data: bytes, info: SnapshotInfo) -> None:
        run = re.sub(r"[^\w.-]", "-", info.run_id, flags=re.ASCII)[:80]
        part = f"{info.path.name.partition('.')[0]}/{run}/{hashlib.sha256(data).hexdigest()}{ownership.PACKED_SNAPSHOT}"
        self.objects.create(part, data)
        here = self._place(part)
        if not here.exists():
            write_whole(here, data, what="the snapshot", private=True)
        self._change(lambda index: _with(index, part, _about(info)))
        if part not in self._index["parts"]:
            self.objects.remove([part])

    def _change(self, change: Any) -> None:
        """Change the index. Raises the `StoreError` family."""
        gone: list[str] = []

        def changed(data: bytes | None) -> bytes:
            index = change(self._parsed(data))
            old = [name for name, when in index["replaced"].items() if age_of(when) > _GRACE]
            gone[:] = old
            self._index = {**index, "replaced": _without(index["replaced"], old)}
            text = orjson.dumps({"format": FORMAT_VERSION, **self._index}, option=orjson.OPT_SORT_KEYS)
            return zstandard.ZstdCompressor(level=6).compress(text)

        self._remember(self.objects.update(INDEX, changed, most=LARGEST_VALUE))
        self.objects.remove(gone)

    def _read_index(self) -> Index:
        """Return the index; where it cannot be read, the one that was read last on this machine."""
        try:
            found = self.objects.read(INDEX, most=LARGEST_VALUE)
            index = self._parsed(None if found is None else found[0])
        except StoreError as error:
            say(self.root, f"{error}. Predictions are served as far as they are in {self.root}")
            with contextlib.suppress(StoreError):
                return self._parsed(read_file(self._last, what="the index"))
            return self._index
        if found is not None:
            with contextlib.suppress(StoreError):
                self._remember(found[0])
        return index

    def _parsed(self, data: bytes | None) -> Index:
        """Return what an index says; of one that is missing or damaged what the parts say themselves."""
        try:
            found = None if data is None else parsed(unpacked(data))
            if found is not None and found["format"] > FORMAT_VERSION:
                raise FormatVersionError(
                    f"the index of {self.shown} has format version {found['format']}; this dspy-cachectl reads up to "
                    f"{FORMAT_VERSION}. Upgrade dspy-cachectl"
                )
            if found is not None:
                return {"parts": dict(_sound(found["parts"])), "replaced": dict(found["replaced"])}
        except (CorruptEntryError, KeyError, TypeError, ValueError, AttributeError):
            say(self.root, f"the index of {self.shown} is damaged, and is made anew of what is there")
        return {"parts": dict(self._listed()), "replaced": {}}

    def _listed(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for part in filter(_PART.fullmatch, self.objects.names()):
            try:
                if not self._place(part).exists():
                    self.fetch(part)
                yield part, _about(snapshot.read_info(self._place(part)))
            except StoreError as error:
                say(self._place(part), f"{error}; it is left out")

    def fetch(self, part: str) -> None:
        """See `SnapshotFiles`."""
        found, name = self.objects.read(part, most=_LARGEST_PART), _PART.fullmatch(part)
        if found is None or name is None or hashlib.sha256(found[0]).hexdigest() != name["hash"]:
            raise CorruptEntryError(f"{self.shown}/{part} is {'damaged' if found else 'gone'}")
        write_whole(self._place(part), found[0], what="the snapshot", private=True)

    def _info(self, part: str, about: Mapping[str, Any]) -> SnapshotInfo | None:
        with contextlib.suppress(CorruptEntryError):
            return snapshot.info_of(self._place(part), about["metadata"], about["bytes"], part=part)
        return None

    def _place(self, part: str) -> Path:
        """Return where a part is here, if it is."""
        stem, _, hash_ = part.split("/")
        return self.root / FOLDER / "parts" / hash_.partition(".")[0] / f"{stem}{ownership.PACKED_SNAPSHOT}"

    @property
    def _last(self) -> Path:
        return self.root / FOLDER / INDEX

    def _remember(self, index: bytes) -> None:
        write_whole(self._last, index, what="the index", private=True)

    def _mark_sent(self, path: Path, stamp: list[int]) -> None:
        write_whole(self._mark(path), orjson.dumps(stamp), what="the mark", private=True)

    def _mark(self, path: Path) -> Path:
        return self.root / FOLDER / "sent" / path.name

    def _is_sent(self, path: Path) -> bool:
        try:
            return bool(orjson.loads(self._mark(path).read_bytes()) == _stamp(path))
        except (OSError, ValueError):
            return False


def _read(path: Path) -> tuple[bytes, SnapshotInfo]:
    return read_file(path, what="the snapshot", most=_LARGEST_PART), snapshot.read_info(path)


def _stamp(path: Path) -> list[int]:
    found = os.stat(path)  # noqa: PTH116 - a number of each
    return [found.st_mtime_ns, found.st_size, found.st_ino]


def _about(info: SnapshotInfo) -> dict[str, Any]:
    return {"metadata": _without(info.metadata, _UNTOLD), "bytes": info.bytes}


def _with(index: Index, part: str, about: dict[str, Any]) -> Index:
    """Return an index with a part more, and without those whose rows it has; as it is where one there has its."""
    its, there = about["metadata"], index["parts"]
    if "grows" in its and any(one["metadata"].get("session") == its["grows"] for one in there.values()):
        return index
    grown = {name for name, one in there.items() if one["metadata"].get("grows", "") == its.get("session")}
    replaced = (grown | {str(name) for name in its.get("replaces", [])}) & there.keys() - {part}
    kept = _without(index["parts"], replaced)
    return {"parts": {**kept, part: about}, "replaced": {**index["replaced"], **dict.fromkeys(replaced, time.time())}}


def _sound(parts: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what an index says of parts, where it is of the kind that is written."""
    for name, about in parts.items():
        its = about.get("metadata") if isinstance(about, dict) else None
        if _PART.fullmatch(name) and isinstance(its, dict) and isinstance(about.get("bytes"), int):
            yield name, about


def _without(table: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    gone = {*names}
    return {name: value for name, value in table.items() if name not in gone}
