"""What is to be delivered to a tracking server: a value with a JSON form, and without a secret.

A record is complete: metrics carry their time and step, so delivering it twice changes nothing.
"""

from __future__ import annotations

import functools
import math
import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from dspy_cachectl.boundary.secrets import is_secret_name, scrub_head, without_credentials
from dspy_cachectl.errors import CorruptEntryError
from dspy_cachectl.reports.texts import cut

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import TypeAdapter

    from dspy_cachectl.tracking.resolve import Target

UID_TAG = "dspy_cachectl.uid"
"""The tag by which a run of our own is found again."""

REPORT_TAG = "dspy_cachectl.report"
"""The tag by which a comparison finds the runs of the reports that it compares."""

LONGEST_TAG = 8000
_LONGEST_PARAM = 6000
_LONGEST_OF_MODEL = 250
_LONGEST_TEXT = 4000
_NOT_IN_NAMES = re.compile(r"[/:.%\"'\s]+")  # of models


@dataclass(frozen=True)
class Point:
    """One value of a metric.

    Attributes:
        key: The metric's name.
        value: A finite number.
        timestamp: Milliseconds since 1970.
        step: The step of the series.
    """

    key: str
    value: float
    timestamp: int
    step: int = 0


@dataclass(frozen=True)
class Dataset:
    """The questions that a score is about, as an input of a run.

    Attributes:
        digest: What tells its content from any other, 36 characters at most.
        questions: How many questions it has.
    """

    digest: str
    questions: int


@dataclass(frozen=True)
class Model:
    """The program that was evaluated, as a model of MLflow whose artifacts are kept elsewhere: nowhere, in fact.

    Attributes:
        name: Its name, without what MLflow refuses in one.
        identity: What tells it from any other. In an experiment there is one model of it, however often it is logged.
        params: What it is made of.
    """

    name: str
    identity: str
    params: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "name",
            _NOT_IN_NAMES.sub("-", scrub_head(self.name, _LONGEST_OF_MODEL))[:_LONGEST_OF_MODEL] or "program",
        )
        object.__setattr__(self, "params", _clean(self.params, longest=_LONGEST_OF_MODEL))


@dataclass(frozen=True)
class Feedback:
    """What a metric said about the answers of one evaluation, for the traces of these answers.

    Attributes:
        metric: The metric's name.
        evaluation: The value of the tag that the traces have.
        experiment_id: The experiment that they are in.
        linked: Whether they belong to the run already.
        values: For each trace its id, the value and what the metric said beside it, or None.
    """

    metric: str
    evaluation: str
    experiment_id: str
    linked: bool
    values: tuple[tuple[str, float | bool | str, str | None], ...]

    def __post_init__(self) -> None:
        plain = ((trace, _said(value), _rationale(why)) for trace, value, why in self.values)
        object.__setattr__(self, "values", tuple(plain))


@dataclass(frozen=True)
class Record:
    """The results of one evaluation or phase.

    Credentials are taken out of the tracking address, tags and params with the name of a secret are left out,
    texts are scrubbed, and metrics that are not finite are dropped: what is built is what may be written.

    Attributes:
        uid: The record's identity, 32 hexadecimal digits.
        started: When it began, in milliseconds since 1970.
        ended: When it ended.
        tracking_uri: Where it goes; None if that was not known.
        run_id: The run it belongs to; None for a run of its own, found by its uid or created.
        experiment_id: The experiment of a run of its own, if known by its id.
        experiment: The same, if known by its name.
        run_name: The name of a run of its own.
        failed: Whether what is recorded ended in an error.
        metrics: The values.
        tags: Tags of the run.
        params: Params, written to a run of its own only.
        artifacts: The files that wait beside the record, by their path in the run.
        tables: Those of them that `mlflow.load_table` is to find.
        dataset: The data set, as an input of the run.
        children: Runs that are shown below this one, where they are not below another.
        compares: The digests of the reports that this compares: their runs are shown below this one too.
        owner: The uid by which a run of its own is found, where that is another record's; None for its own.
        model: The program that was evaluated.
        feedback: What the metric said about each answer. A record with feedback holds nothing else.
    """

    uid: str
    started: int
    ended: int
    tracking_uri: str | None = None
    run_id: str | None = None
    experiment_id: str | None = None
    experiment: str | None = None
    run_name: str | None = None
    failed: bool = False
    metrics: tuple[Point, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    dataset: Dataset | None = None
    children: tuple[str, ...] = ()
    compares: tuple[str, ...] = ()
    owner: str | None = None
    model: Model | None = None
    feedback: tuple[Feedback, ...] = ()

    def __post_init__(self) -> None:
        clean = {
            "tracking_uri": self.tracking_uri and without_credentials(self.tracking_uri),
            "run_name": self.run_name and scrub_head(self.run_name, _LONGEST_TEXT),
            "metrics": tuple(point for point in self.metrics if math.isfinite(point.value)),
            "tags": _clean(self.tags, longest=LONGEST_TAG),
            "params": _clean(self.params, longest=_LONGEST_PARAM),
        }
        for name, value in clean.items():
            object.__setattr__(self, name, value)

    @classmethod
    def to(cls, target: Target | Record, **content: Any) -> Record:
        """Return a new record that is bound for where a target, or another record, is bound for."""
        places = ("tracking_uri", "run_id", "experiment_id", "experiment")
        return cls(**{"uid": new_uid(), **{name: getattr(target, name) for name in places}, **content})

    def to_json(self) -> bytes:
        """Return the record as JSON."""
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, data: bytes) -> Record:
        """Read a record back.

        Raises:
            CorruptEntryError: It is damaged, or no record.
        """
        try:
            return _adapter().validate_json(data, strict=True)
        except ValueError as error:  # pydantic's is one
            raise CorruptEntryError(f"a record of results is damaged: {error}") from error


@functools.lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Record]:
    # Only where a record is read: pydantic takes longer to import than the rest of a command.
    from pydantic import TypeAdapter

    return TypeAdapter(Record)


def new_uid() -> str:
    """Return an identity that no record has."""
    return uuid.uuid4().hex


def _said(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # a number that JSON does not have
    return safe_line(value, longest=_LONGEST_TEXT) if isinstance(value, str) else value


def _rationale(text: str | None) -> str | None:
    """Return what a metric said beside a score, scrubbed and cut, with its lines."""
    clean = None if text is None else scrub_head(text, _LONGEST_TEXT)
    return clean if clean is None or len(clean) <= _LONGEST_TEXT else f"{clean[: _LONGEST_TEXT - 1]}…"


def _clean(pairs: Mapping[str, str], *, longest: int) -> dict[str, str]:
    return {
        name: scrub_head(str(value), longest)[:longest] for name, value in pairs.items() if not is_secret_name(name)
    }


def safe_line(value: Any, *, longest: int = 500) -> str:
    """Return a value's text, scrubbed and cut, for a message or a tag."""
    return cut(scrub_head(str(value), longest), longest)
