"""Whether what is kept in a folder would be committed with the code that it lies beside."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

_PATIENCE = 5.0


def checkout_problems(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield that a folder lies in a git checkout that does not ignore it, and what to do about it.

    Args:
        folder: The folder. Where it is not there, or git is not, nothing is said.
    """
    place = Path(os.path.realpath(folder))
    checkout = next((one for one in (place, *place.parents) if (one / ".git").exists()), None)
    if checkout is None or checkout == Path.home() or not place.is_dir():
        return
    if not _is_ignored(place / "any", checkout):
        entry = f"/{place.relative_to(checkout).as_posix()}/"
        yield (
            f"{place} lies in the git checkout {checkout}, which does not ignore it: prompts and answers would be "
            "committed with the code",
            "name a folder of its own" if place == checkout else f"add {entry} to {checkout / '.gitignore'}",
        )


def _is_ignored(path: Path, checkout: Path) -> bool:
    """Tell whether git ignores a path; True where that is not known."""
    git = shutil.which("git")
    if git is None:
        return True
    command = [git, "-C", str(checkout), "check-ignore", "--quiet", "--no-index", str(path)]
    try:
        done = subprocess.run(  # noqa: S603 - git itself, and no shell
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return True
    return done.returncode != 1
