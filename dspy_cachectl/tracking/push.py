"""One try to deliver one record: the run that it goes to, and its numbers.

What the server has already is not sent to it again, and what was sent is there when the server shows it: a proxy that
asks for a login answers everything. Before each change the record still has to be ours to deliver.
"""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dspy_cachectl.errors import CachectlError
from dspy_cachectl.tracking.client import connect
from dspy_cachectl.tracking.record import UID_TAG, Point, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

MEANT_FOR_TAG = "dspy_cachectl.meant_for_run"
TABLES_TAG = "mlflow.loggedArtifacts"
"""Where `mlflow.load_table` looks for tables."""

_MOST_OF_A_MODEL = 100
_UNKNOWN = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
_NOT_OURS = {*_UNKNOWN, "PERMISSION_DENIED"}
_ENDED = {"FINISHED", "FAILED", "KILLED"}


class LeaseLostError(CachectlError):
    """Somebody else is delivering this record, or has delivered it."""


class GoneError(CachectlError):
    """What a record is for is not on its server: a run or an experiment that was deleted, or never was there."""


class NotShownError(CachectlError):
    """A server has answered as if it had taken something, and does not show it."""


@dataclass
class Progress:
    """How far a try has come, for whoever does not wait for its end.

    Attributes:
        run_id: The run that the record goes to; None until the server has said it.
    """

    run_id: str | None = None


@dataclass(frozen=True)
class Push:
    """One try to deliver one record. It may take as long as the server likes: run it through a limiter.

    Every method raises whatever MLflow raises, and `LeaseLostError`.

    Attributes:
        record: What to deliver.
        address: Where to, with whatever credentials it takes.
        elsewhere: Whether this is another server than the one the record names. A run that is not known there
            is replaced by one of the record's own, and experiments are told by their name only.
        files: The content of the record's artifacts; by their path in the run.
        until: When to stop sending feedback, on the monotonic clock.
        holds: Tells whether the record is still ours to deliver.
        sent: The run for which a file was sent before, by the file's path.
        note_sent: Notes that for a file.
        progress: How far it has come.
    """

    record: Record
    address: str
    elsewhere: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict)
    until: float = math.inf
    holds: Callable[[], bool] = lambda: True
    sent: Mapping[str, str] = field(default_factory=dict)
    note_sent: Callable[[str, str | None], None] = lambda _path, _run_id: None
    progress: Progress = field(default_factory=Progress)

    @cached_property
    def client(self) -> Any:
        """An `MlflowClient`.

        Raises:
            UnreachableError: Nobody listens at the address.
        """
        return connect(self.address)

    def check(self) -> None:
        """Stop where the record is no longer ours to deliver."""
        if not self.holds():
            raise LeaseLostError

    def find(self, get: Callable[[str], Any], number: str, *, unknown: Collection[str] = _NOT_OURS) -> Any | None:
        """Return a run or an experiment; None if the server does not know it."""
        exceptions = importlib.import_module("mlflow.exceptions")
        try:
            return get(number)
        except exceptions.MlflowException as error:
            if error.error_code in unknown:
                return None
            raise

    @cached_property
    def is_in_own_run(self) -> bool:
        """Whether the record gets a run of its own."""
        return self._named_run is None

    def run_that_is_there(self, run_id: str) -> Any:
        """Return a run as its server shows it.

        Raises:
            GoneError: It was deleted, or the server has never had it.
        """
        run = self.find(self.client.get_run, run_id, unknown=_UNKNOWN)
        if run is None:
            raise GoneError(self._gone(f"run {run_id}", "is not there"))
        if run.info.lifecycle_stage == "deleted":
            raise GoneError(self._gone(f"run {run_id}", "was deleted"))
        return run

    def open_run(self) -> Any:
        """Return the run that the record goes to, as its server shows it: the one it names, or one of its own.

        A run of its own is made if there is none.

        Raises:
            GoneError: The run that it names is not there, or the experiment of its own.
        """
        run = self._own_run() if self._named_run is None else self._named_run
        self.progress.run_id = _id_of(run)
        return run

    @cached_property
    def _named_run(self) -> Any | None:
        named = self.record.run_id
        if named is None:
            return None
        if not self.elsewhere:
            return self.run_that_is_there(named)
        run = self.find(self.client.get_run, named)
        return None if run is None or run.info.lifecycle_stage == "deleted" else run

    def _own_run(self) -> Any:
        experiment_id = self._experiment()
        found = self._runs(self._experiments(experiment_id))
        if found:
            return self._keep_first(found)
        self.check()
        made = self._made_run(experiment_id)
        # A request that was given up on may have reached the server all the same, now or in an earlier try.
        found = self._runs([experiment_id])
        found += [made] if _id_of(made) not in map(_id_of, found) else []
        if not self.holds():
            # Whoever delivers it meanwhile keeps the first one, too.
            if _id_of(made) != _id_of(found[0]):
                self.client.delete_run(_id_of(made))
            raise LeaseLostError
        return self._keep_first(found)

    def _made_run(self, experiment_id: str) -> Any:
        tags = {UID_TAG: self.record.owner or self.record.uid, "mlflow.source.name": "dspy-cachectl"}
        try:
            return self.client.create_run(
                experiment_id, start_time=self.record.started, tags=tags, run_name=self.record.run_name
            )
        except Exception:
            experiment = self.find(self.client.get_experiment, experiment_id, unknown=_UNKNOWN)
            self._refuse_deleted(experiment, self.record.experiment or experiment_id)
            raise

    def _refuse_deleted(self, experiment: Any | None, name: str) -> None:
        if experiment is None or experiment.lifecycle_stage == "deleted":
            what = "is not there" if experiment is None else "was deleted"
            raise GoneError(self._gone(f"experiment {name}", what))

    def _gone(self, what: str, how: str) -> str:
        uid = self.record.uid[:8]
        return (
            f"{what} {how}: `dspy-cachectl mlflow discard {uid}`, or `mlflow sync {uid}` with --run-id or --experiment "
            "to send it elsewhere"
        )

    def run_of_owner(self) -> str | None:
        """Return the run that holds the results which this record is about; None if it is not there yet."""
        return next(map(_id_of, self._runs(self._experiments(self._experiment()))), None)

    @cached_property
    def tags(self) -> dict[str, str]:
        """The tags that the run gets."""
        record = self.record
        tags = {**record.tags, UID_TAG: record.owner or record.uid}
        if self.is_in_own_run and record.run_id is not None:
            tags[MEANT_FOR_TAG] = record.run_id
        return tags

    def log_numbers(self, run_id: str, model_id: str | None) -> None:
        """Log metrics, tags and, in a run of its own, params."""
        record, own = self.record, self.is_in_own_run
        entities = importlib.import_module("mlflow.entities")
        linked = set() if model_id is None else _linked(record)
        self.check()
        self.client.log_batch(  # one request; the client itself keeps to the server's limits by making it several
            run_id,
            metrics=[
                entities.Metric(
                    point.key, point.value, point.timestamp, point.step, model_id=model_id if point in linked else None
                )
                for point in record.metrics
            ],
            params=[entities.Param(key, value) for key, value in record.params.items()] if own else [],
            tags=[entities.RunTag(key, value) for key, value in self.tags.items()],
        )

    def end_run(self, run_id: str) -> None:
        """End a run of its own, as the last thing that is done to it."""
        self.check()
        status = "FAILED" if self.record.failed else "FINISHED"
        store = getattr(getattr(self.client, "_tracking_client", None), "store", None)
        if store is None:
            self.client.set_terminated(run_id, status=status, end_time=self.record.ended)
            return
        # What `set_terminated` does, but for the link that it prints to standard output, which takes another request
        # and shows the password of an address that has one.
        run_status = importlib.import_module("mlflow.entities").RunStatus.from_string(status)
        store.update_run_info(run_id, run_status=run_status, end_time=self.record.ended, run_name=None)

    def what_is_missing(self, run: Any) -> str:
        """Return what of the record's numbers a run does not show, in words; empty where nothing is missing.

        Of a metric it shows the last point. Where a later record's stands there, ours is looked for in its history, and
        the tags may be the later one's.
        """
        record, own = self.record, self.is_in_own_run
        shown = {metric.key: metric for metric in run.data.to_proto().metrics}
        hidden = [point for point in _last(record) if not _is(shown.get(point.key), point)]
        if any(not _hides(shown.get(point.key), point) for point in hidden):
            return "metrics"
        history = self.client.get_metric_history(_id_of(run), hidden[0].key) if hidden else ()
        if hidden and not any(_is(one, hidden[0]) for one in history):
            return "metrics"
        is_last = not hidden or run.data.tags.get(UID_TAG) == self.tags[UID_TAG]
        missing = {
            "tags": is_last and not self.tags.items() <= _cut(run.data.tags, self.tags).items(),
            "params": own and not record.params.keys() <= run.data.params.keys(),
            "data set": record.dataset is not None and record.dataset.digest not in _digests(run),
            "end": own and run.info.status not in _ENDED,
        }
        return ", ".join(what for what, is_missing in missing.items() if is_missing)

    def confirm(self, run_id: str, tables: Collection[str]) -> None:
        """See to it that the server shows the record's numbers, and tables that were added to those of the run.

        Raises:
            NotShownError: It does not, whatever it has answered.
        """
        run = self.client.get_run(run_id)
        named = run.data.tags.get(TABLES_TAG, "")
        missing = self.what_is_missing(run) or (
            "tables" if any(json.dumps(path) not in named for path in tables) else ""
        )
        if missing:
            raise NotShownError(f"the server answered as if it had taken them, but run {run_id} is without {missing}")

    def _experiment(self) -> str:
        name, number = self.record.experiment, self.record.experiment_id
        if name is None:
            return "0" if number is None or self.elsewhere else number
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            self._refuse_deleted(found, name)
        if found is None:
            self.check()
            try:
                return str(self.client.create_experiment(name))
            except Exception:
                # Somebody else may have created it since: names are unique.
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if not found.experiment_id:
            raise NotShownError(f"the server answered with an experiment that has no id, for {name!r}")
        return str(found.experiment_id)

    def _experiments(self, first: str) -> list[str]:
        """Return where a run of the record's own may be."""
        other = self.record.experiment_id
        if not self.elsewhere or other is None or other == first:
            return [first]
        # It may be the same server under another address, and an earlier try has left a run there.
        return [first] if self.find(self.client.get_experiment, other) is None else [first, other]

    def _runs(self, experiments: list[str]) -> list[Any]:
        runs = self.client.search_runs(
            experiments,
            filter_string=f"tags.`{UID_TAG}` = '{self.record.owner or self.record.uid}'",
            max_results=100,
        )
        # The first one is kept: one with results, as another record of the same run may have left them there.
        return sorted(runs, key=lambda run: (not run.data.metrics, _id_of(run)))

    def _keep_first(self, runs: list[Any]) -> Any:
        keep, *rest = runs
        for run in rest:
            self.check()
            self.client.delete_run(_id_of(run))
        return keep


def _id_of(run: Any) -> str:
    if not run.info.run_id:
        raise NotShownError("the server answered with a run that has no id, which is no answer of MLflow's")
    return str(run.info.run_id)


def _linked(record: Record) -> set[Point]:
    # MLflow refuses for ever a batch that comes twice with more points of a model than this.
    return set(_last(record)[:_MOST_OF_A_MODEL])


def _last(record: Record) -> list[Point]:
    return list(
        {point.key: point for point in sorted(record.metrics, key=lambda one: (one.step, one.timestamp))}.values()
    )


def _is(shown: Any | None, point: Point) -> bool:
    if shown is None or (int(shown.step), int(shown.timestamp)) != (point.step, point.timestamp):
        return False
    return math.isclose(shown.value, point.value, rel_tol=1e-6, abs_tol=1e-12)


def _hides(shown: Any | None, point: Point) -> bool:
    # Of several of one step and time the greatest is shown.
    return shown is not None and (int(shown.step), int(shown.timestamp)) >= (point.step, point.timestamp)


def _cut(shown: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
    # Some servers keep the beginning of a long value only.
    return {key: ours[key] if value and ours.get(key, "").startswith(value) else value for key, value in shown.items()}


def _digests(run: Any) -> set[str]:
    inputs = run.inputs
    return {one.dataset.digest for one in inputs.dataset_inputs} if inputs is not None else set()
