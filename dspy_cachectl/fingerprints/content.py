"""What weights are in a file or folder, by their content: a retrained model at the same path is another model."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from dspy_cachectl.errors import ConfigurationError

_BLOCK = 1024 * 1024
_RACY = 2.0
"""Seconds for which a file that was just written is not believed to be finished being written."""


def content_hash(path: Path) -> str:
    """Hash a file's content, or a folder's: relative names, sizes and contents.

    A file is read once in a process, for as long as it is the same one.

    Raises:
        ConfigurationError: If something in it cannot be read.
    """
    try:
        return _of_folder(path) if path.is_dir() else _of_file(path)
    except OSError as error:
        raise ConfigurationError(f"the checkpoint {path} cannot be read: {error}") from error


def _of_folder(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        whole.update(f"{name}\0{path.stat().st_size}\0{_of_file(path)}\0".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def _of_file(path: Path) -> str:
    facts = path.stat()
    # The time of change cannot be set by anyone, so a copy that keeps its date is noticed too.
    identity = (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)
    is_settled = time.time() - max(facts.st_mtime, facts.st_ctime) > _RACY
    return (_read if is_settled else _read.__wrapped__)(path.resolve(), identity)


@functools.lru_cache(maxsize=1024)
def _read(path: Path, identity: tuple[int, ...]) -> str:  # noqa: ARG001 - the cache tells files apart by it
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            hashed.update(block)
    return hashed.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted(names):
            path = Path(root) / name
            if path.is_file():
                yield path
