"""Where a library is: in a folder, or in an object store."""

from __future__ import annotations

from pathlib import Path

from dspy_cachectl.config import folder_of, is_objects
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.predictions.files import SnapshotFiles


def files_at(place: str | Path, *, sets_aside: bool = True) -> SnapshotFiles:
    """Return the files of the library at a place.

    Args:
        place: A folder, or the address of an object store.
        sets_aside: See `SnapshotFiles`.

    Raises:
        ConfigurationError: If it cannot be one.
        MissingExtraError: If the package for object stores is needed and not installed.
    """
    if isinstance(place, str) and is_objects(place):
        from dspy_cachectl.predictions.parts import PartFiles

        return PartFiles(place, sets_aside=sets_aside)
    folder = folder_of(str(place))
    if folder is None:
        raise ConfigurationError("predictions are kept in files; name a folder, or pass predictions=False")
    return SnapshotFiles(folder, sets_aside=sets_aside)
