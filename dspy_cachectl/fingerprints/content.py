"""What weights are in a file or folder, by their content: a retrained model at the same path is another model."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from dspy_cachectl.errors import ConfigurationError

_BLOCK = 1024 * 1024
_RACY = 2.0
"""Seconds for which a file that was just written is not believed to be finished being written."""


class ContentHashes:
    """Remembers the hash of a large file for as long as the file is the same one.

    Args:
        path: The file to remember them in, or None to remember nothing.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def of(self, path: Path) -> str:
        """Hash a file's content, or a folder's: relative names, sizes and contents.

        Raises:
            ConfigurationError: If something in it cannot be read.
        """
        try:
            known = self._read()
            fresh = dict(known)
            found = self._folder(path, fresh) if path.is_dir() else self._file(path, fresh)
        except OSError as error:
            raise ConfigurationError(f"the checkpoint {path} cannot be read: {error}") from error
        if fresh != known:
            self._write(fresh)
        return found

    def _folder(self, folder: Path, known: dict[str, str]) -> str:
        whole = hashlib.sha256()
        for path in _files(folder):
            name = path.relative_to(folder).as_posix()
            whole.update(
                f"{name}\0{path.stat().st_size}\0{self._file(path, known)}\0".encode("utf-8", "surrogateescape")
            )
        return whole.hexdigest()

    def _file(self, path: Path, known: dict[str, str]) -> str:
        # The time of change cannot be set by anyone, so a copy that keeps its date is noticed too.
        facts = path.stat()
        identity = f"{path.resolve()}|{facts.st_size}|{facts.st_mtime_ns}|{facts.st_ctime_ns}|{facts.st_ino}"
        if identity in known:
            return known[identity]
        hashed = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                hashed.update(block)
        found = hashed.hexdigest()
        if time.time() - max(facts.st_mtime, facts.st_ctime) > _RACY and facts.st_size > _BLOCK:
            for outdated in [other for other in known if other.startswith(f"{path.resolve()}|")]:
                del known[outdated]
            known[identity] = found
        return found

    def _read(self) -> dict[str, str]:
        if self._path is None:
            return {}
        try:
            stored = orjson.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}  # it only saves time
        if not isinstance(stored, dict):
            return {}
        return {name: value for name, value in stored.items() if isinstance(value, str)}

    def _write(self, known: dict[str, str]) -> None:
        if self._path is None:
            return
        with contextlib.suppress(OSError):  # it only saves time
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=".checkpoints-", suffix=".tmp")
            with os.fdopen(handle, "wb") as file:
                file.write(orjson.dumps(known))
            os.replace(name, self._path)  # noqa: PTH105 - a name, not a Path


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted(names):
            path = Path(root) / name
            if path.is_file():
                yield path
