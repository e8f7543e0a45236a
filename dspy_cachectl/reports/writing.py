"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

from dspy_cachectl.errors import StoreUnavailableError


def write_whole(path: Path, data: bytes, *, what: str) -> None:
    """Write a file in place of what is there, whole or not at all; its folder is made.

    Args:
        path: The file.
        data: Its content.
        what: What it is, for the error.

    Raises:
        StoreUnavailableError: If it cannot be written. What was there is as it was.
    """
    # Nobody can have planted a link under a name that nobody knows, and two writers have two.
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with new.open("xb") as file:
                file.write(data)
            new.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreUnavailableError(f"{what} could not be written to {path}: {error}") from error
