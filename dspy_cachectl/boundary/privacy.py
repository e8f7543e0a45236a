"""Who else may read or change what is kept in a folder."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from dspy_cachectl.boundary.ownership import is_ours

_MOST_NAMED = 3


def problems_of(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a folder that we keep things in, in words, and what to do about it.

    Args:
        folder: The folder. It need not be there; what is above it is looked at all the same.
    """
    if sys.platform == "win32":
        return  # there are no modes
    place = Path(os.path.realpath(folder))
    for one in (place, *place.parents):
        who = _who_may_write(one, is_above=one != place)
        if who:
            what = "put files into it" if one == place else f"put another folder in the place of {place}"
            yield f"{who} may write to {one}, and so {what}", f"chmod go-w {one}"
    wide = sorted(path for path in _files(place) if path.lstat().st_mode & 0o077)
    if wide:
        more = f" and {len(wide) - _MOST_NAMED} more" if len(wide) > _MOST_NAMED else ""
        names = ", ".join(map(str, wide[:_MOST_NAMED]))
        yield f"others may read {names}{more}", f"chmod -R go-rwx {place}"


def _files(folder: Path) -> Iterator[Path]:
    for home, _, names in os.walk(folder):
        yield from (path for name in names if is_ours(path := Path(home, name)))


def _who_may_write(folder: Path, *, is_above: bool) -> str:
    try:
        found = folder.stat()
    except OSError:
        return ""
    if not stat.S_ISDIR(found.st_mode) or (is_above and found.st_mode & stat.S_ISVTX):
        return ""  # in such a folder each may only rename what is their own
    if found.st_mode & stat.S_IWOTH:
        return "everybody"
    return "its group" if found.st_mode & stat.S_IWGRP and not _is_of_one(found.st_gid) else ""


@lru_cache(maxsize=64)
def _is_of_one(group: int) -> bool:
    """Tell whether a group is this user's own, as many systems make one for each user."""
    import grp
    import pwd

    try:
        user, known = pwd.getpwuid(os.getuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return user.pw_gid == group and user.pw_name == known.gr_name and set(known.gr_mem) <= {user.pw_name}
