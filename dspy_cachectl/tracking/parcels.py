"""A record with its files and its destination, and what the files and names of all of them have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from dspy_cachectl.accounting.ledger import FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dspy_cachectl.tracking.record import Record
    from dspy_cachectl.tracking.resolve import Target

PREFIX = "dspy_cachectl"

_LEDGER = ("phase", "role", "model", *FIELDS, "served", "tokens_spent", "tokens_saved")
"""The columns of the table with a row for each phase, role and model."""


@dataclass(frozen=True)
class Parcel:
    """A record with its files and its destination.

    Attributes:
        record: The record.
        target: Where it goes.
        files: The content of its artifacts, by their path in the run.
    """

    record: Record
    target: Target
    files: Mapping[str, bytes] = field(default_factory=dict)


def artifact(what: str, uid: str, ending: str = "json") -> str:
    """Return the path of a record's file in the run."""
    return f"{PREFIX}/{what}_{uid[:8]}.{ending}"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return a table as `mlflow.load_table` reads it: the columns' names, and the rows without them."""
    data = [[_utf8(value) for value in row] for row in rows]
    return orjson.dumps({"columns": columns, "data": data}, option=orjson.OPT_SERIALIZE_NUMPY)


def ledger_table(uid: str, by: Iterable[Mapping[str, Any]]) -> dict[str, bytes]:
    """Return the table of a ledger, by its path in the run; nothing where nothing was counted.

    Args:
        uid: The record's uid.
        by: The rows of the ledger, as in `Stats.as_dict()["by"]`.
    """
    rows = [[row.get(column) for column in _LEDGER] for row in by]
    return {artifact("ledger", uid): table(_LEDGER, rows)} if rows else {}


def named(values: Mapping[str, Any]) -> dict[str, str]:
    """Return tags or params under their full names; what is None is left out."""
    return {f"{PREFIX}.{name}": str(value) for name, value in values.items() if value is not None}


def milliseconds(seconds: float) -> int:
    """Return a time in seconds as MLflow has it."""
    return int(seconds * 1000)


def _utf8(value: Any) -> Any:
    # Half of a surrogate pair has no UTF-8.
    return value if not isinstance(value, str) else value.encode("utf-8", "backslashreplace").decode()
