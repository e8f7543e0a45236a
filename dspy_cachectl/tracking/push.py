"""One try to deliver one record: the run that it goes to, and its numbers.

Doing it twice leaves the server as doing it once, and before each change the record still has to be ours to deliver.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dspy_cachectl.errors import CachectlError
from dspy_cachectl.tracking.client import connect
from dspy_cachectl.tracking.record import UID_TAG, Point, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MEANT_FOR_TAG = "dspy_cachectl.meant_for_run"
_MOST_OF_A_MODEL = 100
_NOT_THERE = {"RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED", "INVALID_PARAMETER_VALUE"}


class LeaseLostError(CachectlError):
    """Somebody else is delivering this record, or has delivered it."""


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
    """

    record: Record
    address: str
    elsewhere: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict)
    until: float = math.inf
    holds: Callable[[], bool] = lambda: True

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

    def find(self, get: Callable[[str], Any], number: str) -> Any | None:
        """Return a run or an experiment; None if the server does not know it."""
        exceptions = importlib.import_module("mlflow.exceptions")
        try:
            return get(number)
        except exceptions.MlflowException as error:
            if error.error_code in _NOT_THERE:
                return None
            raise

    @cached_property
    def is_in_own_run(self) -> bool:
        """Whether the record gets a run of its own."""
        named = self.record.run_id
        return named is None or (self.elsewhere and self.find(self.client.get_run, named) is None)

    def open_run(self) -> str:
        """Return the run that the record goes to: the one it names, or one of its own, which may have to be made."""
        if not self.is_in_own_run:
            return str(self.record.run_id)
        experiment_id = self._experiment()
        found = self._runs(self._experiments(experiment_id))
        if found:
            return self._keep_first(found)
        self.check()
        tags = {UID_TAG: self.record.owner or self.record.uid, "mlflow.source.name": "dspy-cachectl"}
        run = self.client.create_run(
            experiment_id, start_time=self.record.started, tags=tags, run_name=self.record.run_name
        )
        made = str(run.info.run_id)
        # A request that was given up on may have reached the server all the same, now or in an earlier try.
        found = list(dict.fromkeys([*self._runs([experiment_id]), made]))
        if not self.holds():
            # Whoever delivers it meanwhile keeps the first one, too.
            if made != found[0]:
                self.client.delete_run(made)
            raise LeaseLostError
        return self._keep_first(found)

    def run_of_owner(self) -> str | None:
        """Return the run that holds the results which this record is about; None if it is not there yet."""
        return next(iter(self._runs(self._experiments(self._experiment()))), None)

    def log_numbers(self, run_id: str, model_id: str | None) -> None:
        """Log metrics, tags and, in a run of its own, params."""
        record, own = self.record, self.is_in_own_run
        tags = {**record.tags, UID_TAG: record.owner or record.uid}
        if own and record.run_id is not None:
            tags[_MEANT_FOR_TAG] = record.run_id
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
            tags=[entities.RunTag(key, value) for key, value in tags.items()],
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

    def _experiment(self) -> str:
        name, number = self.record.experiment, self.record.experiment_id
        if name is None:
            return "0" if number is None or self.elsewhere else number
        found = self.client.get_experiment_by_name(name)
        if found is None:
            self.check()
            try:
                return str(self.client.create_experiment(name))
            except Exception:
                # Somebody else may have created it since: names are unique.
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _experiments(self, first: str) -> list[str]:
        """Return where a run of the record's own may be."""
        other = self.record.experiment_id
        if not self.elsewhere or other is None or other == first:
            return [first]
        # It may be the same server under another address, and an earlier try has left a run there.
        return [first] if self.find(self.client.get_experiment, other) is None else [first, other]

    def _runs(self, experiments: list[str]) -> list[str]:
        runs = self.client.search_runs(
            experiments,
            filter_string=f"tags.`{UID_TAG}` = '{self.record.owner or self.record.uid}'",
            max_results=100,
        )
        # The first one is kept: one with results, as another record of the same run may have left them there.
        return [run.info.run_id for run in sorted(runs, key=lambda run: (not run.data.metrics, run.info.run_id))]

    def _keep_first(self, run_ids: list[str]) -> str:
        keep, *rest = run_ids
        for run_id in rest:
            self.check()
            self.client.delete_run(run_id)
        return keep


def _linked(record: Record) -> set[Point]:
    # MLflow refuses for ever a batch that comes twice with more points of a model than this.
    last = {point.key: point for point in sorted(record.metrics, key=lambda point: point.step)}
    return set(list(last.values())[:_MOST_OF_A_MODEL])
