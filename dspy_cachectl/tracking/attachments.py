"""What a run gets beside its numbers: the model of its program, files, tables, the data set, and the runs below it.

No file of the model is kept: a saved program holds its LM's key.

Doing it twice leaves the server as doing it once: files are overwritten, the rest is merged. A file is delivered when
the server lists it with its size; what is left begins with the first that the server has not been sent.
"""

from __future__ import annotations

import functools
import importlib
import json
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from dspy_cachectl.boundary.secrets import without_credentials
from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.errors import CachectlError
from dspy_cachectl.tracking.client import asking_like
from dspy_cachectl.tracking.deadline import DeadlineError, asking_for
from dspy_cachectl.tracking.push import TABLES_TAG, LeaseLostError, NotShownError
from dspy_cachectl.tracking.record import LONGEST_TAG, REPORT_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dspy_cachectl.tracking.push import Push
    from dspy_cachectl.tracking.record import Model, Record

logger = logger_for(__name__)

T = TypeVar("T")

PARENT_TAG = "mlflow.parentRunId"
"""What makes a run appear below another one."""

IDENTITY_TAG = "dspy_cachectl.program"
"""The tag by which a program's model is found again."""

_EXTERNAL_TAG = "mlflow.model.isExternal"
_UNKNOWN = {"ENDPOINT_NOT_FOUND", "NOT_FOUND", "RESOURCE_DOES_NOT_EXIST", "NOT_IMPLEMENTED"}
_NAMING_WAIT = 5.0
_SOURCE = json.dumps({"tags": {"mlflow.source.name": "dspy-cachectl"}})


class LeftError(CachectlError):
    """Something of a record is not in its run. Its numbers are."""


@dataclass
class Left:
    """What of a record a server did not take.

    Attributes:
        push: The try to deliver the record.
        run_id: The record's run.
        faults: Why not, for each part.
    """

    push: Push
    run_id: str
    faults: list[Exception] = field(default_factory=list)

    def unless(self, send: Callable[..., T], *arguments: Any) -> T | None:
        """Send a part, and return what came of it; None where the server refused it.

        Raises:
            LeaseLostError: The record is no longer ours to deliver.
            DeadlineError: The limit has passed.
        """
        try:
            return send(*arguments)
        except (LeaseLostError, DeadlineError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever the server or its client does, it is why the part is left
            self.faults.append(error)
            return None

    def tell(self) -> None:
        """Raise the first fault, if there is one.

        Raises:
            LeftError: The server did not take everything.
        """
        if not self.faults:
            return
        first, done = self.faults[0], "" if self.push.record.run_id else "ended "
        if isinstance(first, LeftError):
            raise first
        why = f"{type(first).__name__}: {first}"
        raise LeftError(f"{done}run {self.run_id} has its numbers and not all else: {why}") from first


def model_id(push: Push, run: Any) -> str | None:
    """Return the id of the model of a record's program in the experiment of its run. It is made if there is none.

    Args:
        push: The try to deliver the record.
        run: The record's run.

    Returns:
        The id; None where the record has no program, or the server is too old to know models.

    Raises:
        LeaseLostError: The record is no longer ours to deliver.
        Exception: Whatever else MLflow raises.
    """
    model = push.record.model
    if model is None:
        return None
    experiment_id = run.info.experiment_id
    exceptions = importlib.import_module("mlflow.exceptions")
    try:
        found = _found(push, model, experiment_id)
    except (NotImplementedError, exceptions.MlflowException) as error:
        if getattr(error, "error_code", "NOT_IMPLEMENTED") not in _UNKNOWN:
            raise
        _say_once(without_credentials(push.address))
        return None
    first = found[0] if found else _made(push, model, experiment_id, run.info.run_id)
    if str(getattr(first.status, "value", first.status)) != "READY":
        push.check()
        push.client.finalize_logged_model(first.model_id, "READY")
    return str(first.model_id)


def _made(push: Push, model: Model, experiment_id: str, run_id: str) -> Any:
    push.check()
    made = push.client.create_logged_model(
        experiment_id,
        name=model.name,
        source_run_id=run_id,
        tags={IDENTITY_TAG: model.identity, _EXTERNAL_TAG: "true"},
        params=dict(model.params),
        model_type="dspy",
    )
    # Somebody else may have made one at the same moment: all take the oldest.
    first = (_found(push, model, experiment_id) or [made])[0]
    if made.model_id != first.model_id:
        push.check()
        push.client.delete_logged_model(made.model_id)
    return first


def _found(push: Push, model: Model, experiment_id: str) -> list[Any]:
    models = push.client.search_logged_models(
        [experiment_id], filter_string=f"tags.`{IDENTITY_TAG}` = '{model.identity}'", max_results=50
    )
    return sorted(models, key=lambda one: (one.creation_timestamp, one.model_id))


@functools.lru_cache(maxsize=1000)
def _say_once(server: str) -> None:
    logger.warning("%s knows no models, so results are logged without the program", server)


def log_inputs(push: Push, run_id: str, model_id: str | None) -> None:
    """Log what was evaluated, on what, as inputs of a run. Where nothing is known of it, no request is made."""
    inputs = _inputs(push.record, model_id)
    for tries_left in (2, 1, 0) if inputs else ():
        push.check()
        try:
            push.client.log_inputs(run_id, **inputs)
        except Exception as error:
            # The server looks whether the data set is there and then adds it: two at the same moment both add it.
            if not (tries_left and "unique" in str(error).lower()):
                raise
        else:
            return


def link_children(push: Push, run: Any) -> None:
    """Show runs below this one that are below no other.

    Raises:
        NotShownError: The server answered as if it had taken that, and does not show it.
    """
    run_id = run.info.run_id
    linked = []
    for child in _children(push, run):
        if child.info.run_id != run_id and PARENT_TAG not in child.data.tags:
            push.check()
            push.client.set_tag(child.info.run_id, PARENT_TAG, run_id)
            linked.append(child)
    if linked:
        experiments = list({child.info.experiment_id for child in linked})
        below = push.client.search_runs(experiments, filter_string=f"tags.`{PARENT_TAG}` = '{run_id}'")
        if missing := {child.info.run_id for child in linked} - {child.info.run_id for child in below}:
            raise NotShownError(f"{len(missing)} of {len(linked)} runs are not shown below run {run_id}")


def upload(push: Push, run: Any) -> None:
    """Send the files of a record that its run does not have.

    Raises:
        LeftError: Some of them could not be sent, or the server does not list them.
        LeaseLostError: The record is no longer ours to deliver.
    """
    if not push.files:
        return
    run_id, faults = str(run.info.run_id), {}
    try:
        with asking_for("files"):
            store = _store_of(push, run)
            # One by one: `log_artifacts` has an executor upload to some, and exit waits for an executor's threads.
            for name, data in sorted(push.files.items()):
                if push.sent.get(name) != run_id:
                    push.check()
                    faults[name] = _fault_of_sending(push, store, run_id, name, data)
            lost = _not_listed(push, store)
    except LeaseLostError:
        raise
    except Exception as error:
        first = next((fault for fault in faults.values() if fault is not None), error)
        raise LeftError(_say_left(push, run_id, sorted(push.files), first)) from error
    for name in lost:
        push.note_sent(name, None)
    if lost:
        raise LeftError(_say_left(push, run_id, lost, faults.get(lost[0])))


def _not_listed(push: Push, store: Any) -> list[str]:
    """Return the files that a store does not list with their size; one that lists no sizes is believed."""
    listed: dict[str, int | None] = {}
    for folder in sorted({PurePosixPath(name).parent.as_posix() for name in push.files}):
        listed |= {one.path: one.file_size for one in store.list_artifacts(folder)}
    return sorted(name for name, data in push.files.items() if listed.get(name, -1) not in (None, len(data)))


def _store_of(push: Push, run: Any) -> Any:
    """Return the store of a run's files.

    MLflow's client asks for the run first, and remembers what it is told for as long as the process lives; it takes no
    answer for the working directory.
    """
    place = run.info.artifact_uri
    if not place:
        raise NotShownError("the server answered with a run that has no place for files")
    place = importlib.import_module("mlflow.utils.uri").add_databricks_profile_info_to_artifact_uri(place, push.address)
    registry = importlib.import_module("mlflow.store.artifact.artifact_repository_registry")
    return asking_like(push.client, registry.get_artifact_repository(place, tracking_uri=push.address))


def _fault_of_sending(push: Push, store: Any, run_id: str, name: str, data: bytes) -> Exception | None:
    """Send a file, or return why it could not be sent: the next one may be small enough, say."""
    place = PurePosixPath(name)
    try:
        with tempfile.TemporaryDirectory(prefix="dspy-cachectl-") as folder:
            path = Path(folder, place.name)
            path.write_bytes(data)
            store.log_artifact(str(path), place.parent.as_posix())
        push.note_sent(name, run_id)
    except Exception as error:  # noqa: BLE001 - whatever the store or its client does, it is the reason why a file waits
        return error
    return None


def _say_left(push: Push, run_id: str, names: Sequence[str], fault: Exception | None) -> str:
    why = f"{type(fault).__name__}: {fault}" if fault is not None else "the server answered, but does not list it whole"
    done = "" if push.record.run_id else "ended "
    return f"{done}run {run_id} is without {len(names)} of {len(push.files)} files; {names[0]}: {why}"


def _inputs(record: Record, model_id: str | None) -> dict[str, list[Any]]:
    entities = importlib.import_module("mlflow.entities")
    inputs: dict[str, list[Any]] = {}
    if record.dataset is not None:
        dataset = entities.Dataset(
            name="devset",
            digest=record.dataset.digest,
            source_type="code",
            source=_SOURCE,
            profile=json.dumps({"num_rows": record.dataset.questions}),
        )
        inputs["datasets"] = [entities.DatasetInput(dataset, [entities.InputTag("mlflow.data.context", "eval")])]
    if model_id is not None:
        inputs["models"] = [entities.LoggedModelInput(model_id)]
    return inputs


_naming = threading.Lock()


def name_tables(push: Push, run: Any) -> tuple[str, ...]:
    """Add a record's tables to those of its run, and return those that were not among them.

    This process's threads do it one after the other: each reads the list and writes it.

    Args:
        push: The try to deliver the record.
        run: The run, as it was when it was opened. A run of the record's own has nobody else who writes to it.
    """
    if not push.record.tables:
        return ()
    if push.is_in_own_run:
        return _add_tables(push, run)
    # Not for ever: the one before may hang.
    held = _naming.acquire(timeout=_NAMING_WAIT)
    try:
        return _add_tables(push, push.client.get_run(run.info.run_id))
    finally:
        if held:
            _naming.release()


def _add_tables(push: Push, run: Any) -> tuple[str, ...]:
    run_id = run.info.run_id
    try:
        tables = list(json.loads(run.data.tags.get(TABLES_TAG, "[]")))
    except (ValueError, TypeError):
        logger.warning("run %s has a tag %s that is not a list of tables; it is left alone", run_id, TABLES_TAG)
        return ()
    added = [{"path": path, "type": "table"} for path in push.record.tables]
    added = [table for table in added if table not in tables]
    text = json.dumps(tables + added)
    if len(text) > LONGEST_TAG:
        logger.warning("run %s has too many tables for mlflow.load_table to find another", run_id)
        return ()
    if added:
        push.check()
        push.client.set_tag(run_id, TABLES_TAG, text)
    return tuple(table["path"] for table in added)


def _children(push: Push, run: Any) -> Iterator[Any]:
    for child in (push.find(push.client.get_run, number) for number in push.record.children):
        if child is not None and child.info.lifecycle_stage == "active":
            yield child
    for digest in push.record.compares:
        yield from push.client.search_runs([run.info.experiment_id], filter_string=f"tags.`{REPORT_TAG}` = '{digest}'")
