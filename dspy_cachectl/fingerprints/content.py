"""What weights are in a file or folder, by their content: a retrained model at the same path is another model."""

from __future__ import annotations

import functools
import hashlib
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dspy_cachectl.boundary.reading import open_file
from dspy_cachectl.errors import ConfigurationError, StoreUnavailableError

_IS_PATH = re.compile(r"[/.~\\]|[A-Za-z]:[\\/](?!/)")
_LOADS_WEIGHTS = frozenset({"local", "vllm"})
"""Providers of models that are loaded by path: elsewhere a folder of a model's name is somebody's notes about it."""

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
    except (OSError, StoreUnavailableError) as error:
        raise ConfigurationError(f"the checkpoint {path} cannot be read: {error}") from error


def checkpoint_of(lm: Any) -> str | None:
    """Return the hash of the weights of an LM, where it is given a local file or folder; else None.

    Raises:
        ConfigurationError: If something in it cannot be read.
    """
    options = getattr(lm, "kwargs", None) or {}
    addresses = (options.get("api_base"), options.get("base_url"))
    for name in (getattr(lm, "model", None), getattr(lm, "endpoint", None), *addresses):
        path = _path(name) if isinstance(name, str) else None
        if path is not None:
            return content_hash(path)
    return None


def _path(name: str) -> Path | None:
    """Return the path that a name of a model is: where it is written as one, or its provider loads weights."""
    provider, _, rest = name.partition("/")
    # An endpoint may be called `local`, and is not the working directory.
    is_loaded = provider in _LOADS_WEIGHTS and bool(rest)
    text = rest if is_loaded or _IS_PATH.match(rest) else name
    if name.startswith("file://"):
        text = unquote(urlsplit(name).path)
    elif "://" in name or not (_IS_PATH.match(text) or is_loaded):
        return None
    try:
        path = Path(text).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None  # a name that is no path


def _of_folder(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and ".git" not in name.parts[:-1]:
            text = f"{name.as_posix()}\0{path.stat().st_size}\0{_of_file(path)}\0"
            whole.update(text.encode("utf-8", "surrogateescape"))
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
    with open_file(path, what="the checkpoint") as file:
        while block := file.read(_BLOCK):
            hashed.update(block)
    return hashed.hexdigest()
