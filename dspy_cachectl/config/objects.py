"""The address of a place in an object store, as somebody wrote it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from dspy_cachectl.boundary.secrets import scrub
from dspy_cachectl.errors import ConfigurationError

_OBJECTS = re.compile(r"(?:s3|gs|az)://", re.IGNORECASE)
_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{1,62}(?:/[A-Za-z0-9._=/-]*)?")


def is_objects(location: str) -> bool:
    """Tell whether a location is the address of an object store."""
    return _OBJECTS.match(location) is not None


def objects_of(location: str) -> str:
    """Return the address of a place in an object store as it is used, without a slash at its end.

    Args:
        location: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.

    Raises:
        ConfigurationError: If it cannot be used. The message shows no credentials.
    """
    scheme, _, place = location.partition("://")
    if _PLACE.fullmatch(place) is None or {".", "..", ""} & {*place.rstrip("/").split("/")}:
        shown = scrub(f"{scheme}://{place.rpartition('@')[2].partition('?')[0]}")
        raise ConfigurationError(
            f"the address {shown!r} of an object store cannot be used: write {scheme.lower()}://bucket/prefix, of "
            "letters, digits, '.', '_', '=' and '-'. Credentials and the server are taken from the environment"
        )
    return f"{scheme.lower()}://{place.rstrip('/')}"


def mirror_of(location: str, state: str) -> Path:
    """Return the folder for what is on its way to a place in an object store, and for what was read from there.

    Args:
        location: The place's address, as `objects_of` gives it.
        state: The folder for what has to survive a process.
    """
    return Path(state) / "objects" / hashlib.sha256(location.encode()).hexdigest()[:16]
