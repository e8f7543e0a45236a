"""A record with its files, and what the names and files of all of them have in common."""

from __future__ import annotations

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from dspy_cachectl._version import __version__
from dspy_cachectl.accounting.ledger import FIELDS
from dspy_cachectl.entries.token_counts import NAMES
from dspy_cachectl.tracking.record import Model, Point

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dspy_cachectl.tracking.record import Record
    from dspy_cachectl.tracking.resolve import Target

PREFIX = "dspy_cachectl"

PROVENANCE_TAGS = {
    "cache_run_id": "run_id",
    "phase": "phase",
    "policy": "policy",
    "model": "model",
    "model_version": "version",
    "endpoint": "endpoint",
    "program_sha": "program",
    "devset_digest": "data",
    "metric": "metric",
    "metric_sha": "metric_hash",
    "predictions": "predictions",
    "snapshot": "snapshot",
}
"""Tags, by the field of the provenance that they show."""

_MODEL_PARAMS = ("program_sha", "model", "model_version", "endpoint")
_COUNTERS = (*FIELDS, "served", "tokens_spent", "tokens_saved")
_LEDGER = ("phase", "role", "model", *_COUNTERS)
"""The columns of the table with a row for each phase, role and model."""

_COSTS = {"unpriced"} | {
    f"{what}_{how}" for what in ("cost", *NAMES, "tokens", "seconds") for how in ("spent", "saved")
}
"""The counters that are logged as costs; the others tell of the cache."""


class Logged(ABC):
    """A value of a wing above that can be logged: it makes its own records."""

    @abstractmethod
    def records(self, target: Target) -> list[Outgoing]:
        """Return what is delivered of it.

        Args:
            target: Where it goes.
        """


@dataclass(frozen=True)
class Outgoing:
    """A record with its files.

    Attributes:
        record: The record.
        files: The content of its artifacts, by their path in the run.
    """

    record: Record
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


def ledger_metrics(counters: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the metrics of counters, as in `Stats.as_dict()`, zeros included, so that runs can be compared."""
    found = {_counter(name): counters.get(name) for name in _COUNTERS}
    if counters.get("calls") and "served" in counters:
        found["cache/hit_rate"] = counters["served"] / counters["calls"]
    return found


def _counter(name: str) -> str:
    # Dollars are what cost/spent is in.
    return f"cost/{name.removeprefix('cost_')}" if name in _COSTS else f"cache/{name}"


def program_model(name: str, provenance: Mapping[str, Any]) -> Model:
    """Return the model of a program, given what tells it from others, by the fields of a report's provenance."""
    known = {tag: provenance.get(PROVENANCE_TAGS[tag]) for tag in _MODEL_PARAMS}
    params = named({**known, "temperature": provenance.get("temperature")})
    identity = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:32]
    return Model(name, identity, params=params)


_MOST_RUNS = 10_000
_next_steps: OrderedDict[tuple[str | None, str], int] = OrderedDict()
"""The next free step of each of the runs that were logged to last."""
_steps_lock = threading.Lock()


def first_step(target: Target, count: int) -> int:
    """Return the first of so many free steps of a run: what this process logs to it later has later steps."""
    if target.run_id is None:
        return 0
    key = (target.tracking_uri, target.run_id)
    with _steps_lock:
        step = _next_steps.pop(key, 0)
        _next_steps[key] = step + max(count, 1)
        if len(_next_steps) > _MOST_RUNS:
            _next_steps.popitem(last=False)
    return step


def points(values: Mapping[str, float | None], step: int, at: float) -> tuple[Point, ...]:
    """Return metrics under their full names, all of one step and time; what is None is left out."""
    return tuple(
        Point(f"{PREFIX}/{key}", float(value), milliseconds(at), step)
        for key, value in values.items()
        if value is not None
    )


def tags(kind: str, provenance: Mapping[str, Any], **more: Any) -> dict[str, str]:
    """Return the tags of a record of a kind, given what is known by the fields of a report's provenance, and more."""
    known = {tag: provenance.get(name) for tag, name in PROVENANCE_TAGS.items()}
    return named({"version": __version__, "kind": kind, **known, **more})


def named(values: Mapping[str, Any]) -> dict[str, str]:
    """Return tags or params under their full names; what is None is left out."""
    return {f"{PREFIX}.{name}": str(value) for name, value in values.items() if value is not None}


def milliseconds(seconds: float) -> int:
    """Return a time in seconds as MLflow has it."""
    return int(seconds * 1000)


def _utf8(value: Any) -> Any:
    # Half of a surrogate pair has no UTF-8.
    return value if not isinstance(value, str) else value.encode("utf-8", "backslashreplace").decode()
