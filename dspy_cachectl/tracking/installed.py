"""What is known of the installed MLflow without importing it, which takes seconds."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

_REVISION = re.compile(r"^(down_)?revision\s*(?::[^=]*)?=\s*\(?\s*[\"']([^\"']+)[\"']", re.MULTILINE)
_DEFAULT_ADDRESS = re.compile(r"^DEFAULT_TRACKING_URI\s*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)


def loaded() -> ModuleType | None:
    """Return MLflow where it has been imported, whole: another thread may be about it."""
    mlflow = sys.modules.get("mlflow")
    is_whole = mlflow is not None and not getattr(mlflow.__spec__, "_initializing", False)
    return mlflow if is_whole and hasattr(mlflow, "active_run") else None


@functools.cache
def folder() -> Path | None:
    """Return the folder of the package; None where MLflow is not installed."""
    try:
        spec = importlib.util.find_spec("mlflow")
    except (ImportError, ValueError):  # something that only calls itself mlflow
        return None
    places = (spec.submodule_search_locations if spec is not None else None) or ()
    return next((Path(place) for place in places), None)


@functools.cache
def head_revision() -> str | None:
    """Return the revision of a database that this MLflow works with; None where it brings no migrations."""
    package = folder()
    if package is None:
        return None
    made: set[str] = set()
    built_on: set[str] = set()
    for file in (package / "store" / "db_migrations" / "versions").glob("*.py"):
        for down, revision in _REVISION.findall(file.read_text(encoding="utf-8")):
            (built_on if down else made).add(revision)
    heads = made - built_on
    return heads.pop() if len(heads) == 1 else None


def default_address() -> str | None:
    """Return the address that this MLflow uses in this working directory where nobody says another."""
    package = folder()
    constants = package / "store" / "tracking" / "__init__.py" if package is not None else None
    if constants is None or not constants.is_file():
        return None
    named = _DEFAULT_ADDRESS.search(constants.read_text(encoding="utf-8"))
    # As MLflow itself does: a folder that holds experiments already goes on being used.
    if named is None or any(path.parent.name.isdigit() for path in Path("mlruns").glob("*/meta.yaml")):
        return Path("mlruns").absolute().as_uri()
    return named[1]
