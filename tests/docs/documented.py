"""The code in the pages of the documentation, as somebody runs it who reads them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]


def blocks(text: str, language: str = "python") -> list[str]:
    """Return the code of one language in a page, block by block."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def sections(text: str, level: int = 2) -> dict[str, str]:
    """Return the text under each heading of a level, by the heading."""
    _, *rest = re.split(rf"^{'#' * level} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(rest[::2], rest[1::2], strict=True))


def installed_by(command: str) -> set[str]:
    """Return the distributions that a `pip install` brings, as far as they are installed here: normalised names."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(word) for word in shlex.split(command, comments=True)[2:]]
    while waiting:
        one = waiting.pop()
        for extra in ("", *one.extras):
            if (one.name, extra) not in seen:
                seen.add((one.name, extra))
                found.add(_plain(one.name))
                waiting += _needed(one.name, extra)
    return found


def _needed(name: str, extra: str) -> Iterator[Requirement]:
    try:
        needed = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for one in map(Requirement, needed):
        if one.marker is None or one.marker.evaluate({"extra": extra}):
            yield one


def not_in(distributions: set[str]) -> list[str]:
    """Return the modules that are installed here and that none of these distributions brings."""
    modules = metadata.packages_distributions()
    return sorted(name for name, owners in modules.items() if not distributions & set(map(_plain, owners)))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
