"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from pathlib import Path

from dspy_cachectl.errors import StoreUnavailableError


def write_whole(path: Path, data: bytes, *, what: str) -> None:
    """Write a file in place of what is there, whole or not at all; its folder is made.

    Where a link is there, what it leads to is replaced. A new file may be read by whom the umask says; one that was
    there keeps its mode.

    Args:
        path: The file.
        data: Its content.
        what: What it is, for the error.

    Raises:
        StoreUnavailableError: If it cannot be written. What was there is as it was.
    """
    target = Path(os.path.realpath(path))
    new = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with new.open("xb") as file:
                if target.exists():
                    new.chmod(stat.S_IMODE(target.stat().st_mode))
                file.write(data)
            new.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to be told
                new.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreUnavailableError(f"{what} {path} cannot be written: {error}") from error
