"""What a shell offers after `--model`, `--phase`, `--run`, `--role` and `--kind`: the names in the store."""

from __future__ import annotations

from collections.abc import Callable

import typer

from dspy_cachectl.cli.location import Location
from dspy_cachectl.stores.reader import FolderReader

_MOST = 200
_PATIENCE = 0.05


def names_of(field: str) -> Callable[[typer.Context, str], list[str]]:
    """Return a function that completes the names in one field of the entries' labels. It never fails."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        try:
            folder = Location(context.find_root().params.get("store")).folder()
            labels = FolderReader(folder, patience=_PATIENCE).labels()
        except Exception:  # noqa: BLE001 - a shell that is completing a line shows no errors
            return []
        names = {str(getattr(label, field)) for label in labels if label.is_answer}
        return sorted(name for name in names if name and name.isprintable() and name.startswith(incomplete))[:_MOST]

    return complete
