"""Where a cassette is: a file, or an object of an object store, of which a copy is on this machine while it is used.

An object is read when the cassette is opened, and written where nobody else has written it meanwhile; otherwise it is
read again, and what both recorded is kept.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from dspy_cachectl.boundary.writing import make_private, write_whole
from dspy_cachectl.config import is_objects, mirror_of, objects_of, settings
from dspy_cachectl.context.process import logger
from dspy_cachectl.errors import ConfigurationError, StoreError, StoreUnavailableError
from dspy_cachectl.replay import unsaved
from dspy_cachectl.replay.files import LARGEST_FILE

if TYPE_CHECKING:
    from dspy_cachectl.stores.objects import Version


class CassettePlace:
    """A cassette's file.

    Args:
        path: The file.

    Attributes:
        path: The file.
        shown: What it is called in messages.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.shown = path, str(path)

    def fetch(self) -> None:
        """See to it that what is there can be read from the file. Raises `StoreUnavailableError`."""

    def change(self, write: Callable[[], None]) -> None:
        """Change what is there.

        Args:
            write: Writes the file anew of what it holds.

        Raises:
            StoreError: If it cannot be read or written.
        """
        with unsaved.locked(self.path):
            write()

    def named(self) -> AbstractContextManager[None]:
        """Have errors of what is done with the file in the block say what it is called in messages."""
        return contextlib.nullcontext()


class ObjectPlace(CassettePlace):
    """An object of an object store.

    Args:
        address: `s3://bucket/name`, and likewise `gs://` and `az://`.

    Raises:
        ConfigurationError: If the address cannot be used, or names no object.
        MissingExtraError: If the package for object stores is not installed.
    """

    def __init__(self, address: str) -> None:
        from dspy_cachectl.stores.objects import ObjectStore

        whole = objects_of(address)
        folder, _, self._name = whole.rpartition("/")
        if folder.endswith("/"):
            raise ConfigurationError(f"{whole} is a bucket; name the cassette in it: {whole}/answers.jsonl")
        self._objects = ObjectStore(folder)
        super().__init__(mirror_of(whole, settings().state) / self._name)
        self.shown = whole

    def fetch(self) -> None:
        """See `CassettePlace`."""
        try:
            make_private(self.path.parent)
        except OSError as error:
            raise StoreUnavailableError(f"the folder {self.path.parent} cannot be written: {error}") from error
        with unsaved.locked(self.path):
            version = self._objects.version(self._name)
            if _fetched.get(self.path) != (version, self._stamp()):
                found, version = self._objects.read(self._name, most=LARGEST_FILE) or (None, None)
                self._put_here(found)
                _fetched[self.path] = (version, self._stamp())

    def change(self, write: Callable[[], None]) -> None:
        """See `CassettePlace`."""
        attempts = 0

        def changed(data: bytes | None) -> bytes:
            nonlocal attempts
            attempts += 1
            self._put_here(data)
            with self.named():
                write()
            return self.path.read_bytes()

        with unsaved.locked(self.path):
            self._objects.update(self._name, changed, most=LARGEST_FILE)
        if attempts > 1:
            logger.info("%s was changed by somebody else meanwhile; it has what both recorded", self.shown)

    def _put_here(self, data: bytes | None) -> None:
        if data is None:
            self.path.unlink(missing_ok=True)
        else:
            write_whole(self.path, data, what="the cassette", private=True)

    def _stamp(self) -> tuple[int, ...]:
        with contextlib.suppress(FileNotFoundError):
            found = self.path.stat()
            return (found.st_mtime_ns, found.st_size, found.st_ino)
        return ()

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """See `CassettePlace`."""
        try:
            yield
        except StoreError as error:
            raise type(error)(str(error).replace(str(self.path), self.shown)) from error


_fetched: dict[Path, tuple[Version | None, tuple[int, ...]]] = {}
"""Of each copy that this process has made the version of its object, and how to tell whether it is still that copy."""


def place_of(path: str | os.PathLike[str]) -> CassettePlace:
    """Return the place that a path or an address names.

    Args:
        path: A file, or the address of an object.

    Raises:
        ConfigurationError: If an address cannot be used.
        MissingExtraError: If the package for object stores is needed and not installed.
    """
    return ObjectPlace(path) if isinstance(path, str) and is_objects(path) else CassettePlace(Path(path))
