"""Which folder is meant by a text that somebody wrote."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TypeAlias

from dspy_cachectl.boundary.reading import no_path
from dspy_cachectl.boundary.secrets import scrub
from dspy_cachectl.config.shared import is_shared, misses, shared_of
from dspy_cachectl.errors import ConfigurationError

MEMORY = "memory://"
_LONGEST = 80
_IN_MEMORY = frozenset({"memory", "memory:", MEMORY})


def shortened(text: str) -> str:
    """Return as much of a text as a message has room for."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def folder_of(location: str, *, base: Path | None = None, looks: bool = True) -> Path | None:
    """Return the folder that a store's location names, absolute, or None for a store in memory.

    Args:
        location: A folder's path, `file:///path`, or `memory://`.
        base: The folder that it is relative to. None: the working directory.
        looks: Whether to look if something else is there.

    Raises:
        ConfigurationError: If the location is of a kind that is not known, or cannot be a folder's.
    """
    said = shortened(repr(scrub(location)))
    if location in _IN_MEMORY:
        return None
    if lacks := misses(location):
        # What stands in it may be a password, and a folder of that name would show it.
        raise ConfigurationError(lacks)
    if "://" in location:
        location = _path_in(location, said)
    try:
        # Not `resolve`: what a link means is asked each time, as for every other path.
        folder = (base or Path.cwd()) / Path(location).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(f"{said} names no user's home; write the whole path of the folder") from error
    except OSError as error:
        raise ConfigurationError(
            f"{said} is relative to a working directory that is gone ({error.strerror})"
        ) from error
    reason = no_path(folder)
    if reason:
        raise ConfigurationError(f"{said} cannot be a folder's path ({reason}); name a folder")
    if looks:
        _check(folder, said)
    return folder


def _path_in(address: str, said: str) -> str:
    scheme, _, rest = address.partition("://")
    if scheme == "file" and _is_whole(rest):
        return rest
    if is_shared(address):
        raise ConfigurationError(f"{said} is a shared store, and a folder is needed here")
    raise ConfigurationError(
        f"unknown store {said}: write a folder's path, 'file:///path', 'redis://host' or 'memory://'"
    )


def _is_whole(path: str) -> bool:
    """Tell whether a path begins at a root or a home. What else stands after `file://` is a machine's name."""
    return path.startswith("~") or Path(path).is_absolute()


def _check(folder: Path, said: str) -> None:
    """Look at the nearest of a folder and those above it that is there: nothing can be made in what is no folder."""
    for path in (folder, *folder.parents):
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            if not path.is_symlink():
                continue
            raise ConfigurationError(f"{str(path)!r} is a link that leads nowhere; name a folder") from None
        except PermissionError:
            return  # who uses it says so, and what to do
        except OSError as error:  # too long, a circle of links
            raise ConfigurationError(f"{said} cannot be a folder's path ({error.strerror}); name a folder") from error
        if not stat.S_ISDIR(mode):
            kind = "a file" if stat.S_ISREG(mode) else "no folder"
            raise ConfigurationError(f"{str(path)!r} is {kind}; name a folder")
        return


Stores: TypeAlias = str | tuple[str, ...]
"""Where entries live: a folder's path, `memory://` or an address; or several of these, the nearest first."""


def each_of(stores: Stores) -> tuple[str, ...]:
    """Return the locations of one store or of several."""
    return (stores,) if isinstance(stores, str) else stores


def normal_location(location: str, *, base: Path | None = None, looks: bool = True, shared: bool = True) -> str:
    """Return a location as it is to be kept: a folder's whole path, `memory://`, or a shared store's address.

    Args:
        location: What somebody wrote.
        base: See `folder_of`.
        looks: See there.
        shared: Whether it may be a shared store.

    Raises:
        ConfigurationError: As for `folder_of` and `shared_of`.
    """
    if shared and is_shared(location):
        shared_of(location)
        return location
    folder = folder_of(location, base=base, looks=looks)
    return MEMORY if folder is None else os.fspath(folder)
