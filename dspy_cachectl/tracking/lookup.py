"""`find_mlflow_run()`: the run that results belong to, from memory where it is there, and else within a limit."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from dspy_cachectl.boundary.secrets import without_credentials
from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.config import setting_now
from dspy_cachectl.errors import CachectlError
from dspy_cachectl.tracking import client, database, delivery, installed
from dspy_cachectl.tracking.deadline import check_limit
from dspy_cachectl.tracking.resolve import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logger_for(__name__)

_inherited: set[str] = set()
"""The runs of the process that this one was forked from."""


def find_mlflow_run(experiment: str | None = None, timeout: float = 10.0) -> str | None:
    """Return the id of the MLflow run that this code belongs to, without ever hanging.

    It is the run that is active in this thread, or in the evaluation that this code is within; else the last one that
    ended in this thread, such as the one that autolog opened for an evaluation; else this process's last run; else,
    only where an experiment is named, the newest run of that, which may be another process's. The log says which of
    the four it is, or why there is none. The first two take no request.

    Args:
        experiment: The name of an experiment whose newest run will do, too.
        timeout: Seconds that this may take, importing MLflow and making its database ready included.

    Returns:
        The id, or None.

    Raises:
        ConfigurationError: The timeout is not a number of seconds.
    """
    until = time.monotonic() + check_limit(timeout)
    if not setting_now("mlflow"):
        logger.info("no MLflow run: the setting 'mlflow' (DSPY_CACHECTL_MLFLOW) turns it off")
        return None
    for how, find in (("the active run of this thread", _active), ("the last run that ended in this thread", _ended)):
        if found := find():
            logger.info("MLflow run %s: %s", found, how)
            return found
    try:
        if found := _last_of_process(until, timeout):
            logger.info("MLflow run %s: this process's last run; it may be another thread's", found)
            return found
        if experiment is None:
            logger.warning("no MLflow run: none was active in this process, and no experiment is named")
            return None
        found = _newest(experiment, until, timeout)
    except Exception as error:  # noqa: BLE001 - whatever the server or its client does, the caller goes on
        logger.warning("no MLflow run: %s", delivery.reason_of(error))
        return None
    logger.warning("MLflow run %s: newest of experiment %r: may be another process's", found, experiment)
    return found


def _active() -> str | None:
    evaluations = sys.modules.get("dspy_cachectl.context.evaluations")
    scope = evaluations.current() if evaluations is not None else None
    if scope is not None and scope.mlflow_run is not None:
        return str(scope.mlflow_run)
    mlflow = installed.loaded()
    active = mlflow.active_run() if mlflow is not None else None
    return None if active is None else str(active.info.run_id)


def _ended() -> str | None:
    variable = _of_threads("_last_active_run_id")
    # Looking in MLflow's own way would put None there, for a thread whose number an ended one had.
    found = getattr(getattr(variable, "thread_local", None), "value", None)
    return str(found[0]) if isinstance(found, tuple) and found[0] and found[1] == os.getpid() else None


def _last_of_process(until: float, patience: float) -> str | None:
    stacks = _values("_active_run_stack")
    active = [run for stack in stacks for run in stack or () if run.info.run_id not in _inherited]
    if active:
        return str(max(active, key=lambda run: run.info.start_time).info.run_id)
    ended = sorted({str(run_id) for run_id in _values("_last_active_run_id") if run_id} - _inherited)
    if len(ended) < 2:
        return ended[0] if ended else None

    # Nothing in memory tells which of them was the last.
    def last(server: Any) -> str:
        runs = [server.get_run(run_id) for run_id in ended]
        return str(max(runs, key=lambda run: (run.info.end_time or 0, run.info.start_time)).info.run_id)

    return _ask(last, until, patience)


def _newest(experiment: str, until: float, patience: float) -> str:
    def newest(server: Any) -> str:
        found = server.get_experiment_by_name(experiment)
        if found is None:
            raise CachectlError(f"there is no experiment {experiment!r}")
        runs = server.search_runs([found.experiment_id], max_results=1, order_by=["attributes.start_time DESC"])
        if not runs:
            raise CachectlError(f"experiment {experiment!r} has no run")
        return str(runs[0].info.run_id)

    return _ask(newest, until, patience)


def _ask(question: Callable[[Any], str], until: float, patience: float) -> str:
    """Return what the server that MLflow is set to answers.

    Raises:
        CachectlError: It does not answer in time, or there is none, or there is no such run.
        Exception: Whatever else MLflow raises.
    """
    address = resolve().tracking_uri or ""
    file = database.file_of(address)
    if file is not None and not file.exists():
        raise CachectlError(f"there is no database {file} yet")
    client.prepare(address, until=until)
    return delivery.limiter.run(
        lambda: question(client.connect(address)),
        limit=until - time.monotonic(),
        target=without_credentials(address),
        patience=patience,
    )


def _of_threads(name: str) -> Any:
    """Return one of MLflow's variables that have a value for each thread; None where this MLflow has no such."""
    return getattr(sys.modules.get("mlflow.tracking.fluent"), name, None)


def _values(name: str) -> list[Any]:
    """Return what a variable is in all threads of this process."""
    all_values = getattr(_of_threads(name), "get_all_thread_values", None)
    return list(all_values().values()) if all_values is not None else []


def _note_inherited() -> None:
    ended = (run_id for run_id in _values("_last_active_run_id") if run_id)
    active = (run.info.run_id for stack in _values("_active_run_stack") for run in stack or ())
    _inherited.update(map(str, (*ended, *active)))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_inherited)
