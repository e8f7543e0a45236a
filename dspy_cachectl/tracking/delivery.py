"""Delivering what waits in the outbox: one record within a limit, or all of them, from any process."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from dspy_cachectl.boundary.secrets import without_credentials
from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.errors import CachectlError, ConfigurationError, CorruptEntryError, StoreError
from dspy_cachectl.tracking import attachments, client, feedback
from dspy_cachectl.tracking.database import DatabaseError
from dspy_cachectl.tracking.deadline import CircuitOpenError, DeadlineError, TimeLimiter, check_limit
from dspy_cachectl.tracking.outbox import Lease, Outbox, Waiting
from dspy_cachectl.tracking.push import MEANT_FOR_TAG, LeaseLostError, Progress, Push
from dspy_cachectl.tracking.record import Record, safe_line
from dspy_cachectl.tracking.resolve import absolute, default_uri

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

logger = logger_for(__name__)

limiter = TimeLimiter()
"""The process's limiter: circuits are shared by all that is delivered in it."""

SHARE = 0.8
"""The share of a limit for which feedback is sent, so that it stops before it is taken for a server that hangs."""

LEAST_LEFT = 0.5
"""Seconds of a limit without which no further record is begun."""

MOST_TRIES = 3
"""Failed tries after which a record is only delivered by `sync`."""

_NOWHERE = "it names no tracking server: give --uri, or set MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class LogOutcome:
    """What became of results that were to be logged. Where they make several records, it tells of the last.

    Attributes:
        status: `"logged"`: the server has them. `"pending"`: they wait in the outbox. `"busy"`: another thread or
            process is delivering them, or has meanwhile. `"damaged"`: the outbox does not have them as they were
            written, and they are not delivered. `"disabled"`: logging is turned off, and nothing was written.
            `"failed"`: neither the server nor the outbox took them.
        uid: The record's identity in the outbox; None if there is no record.
        run_id: The MLflow run that holds them or is meant to; None if it is not known yet.
        reason: Why they are not logged; empty if they are.
        seconds: How long it took.
    """

    status: Literal["logged", "pending", "busy", "damaged", "disabled", "failed"]
    uid: str | None = None
    run_id: str | None = None
    reason: str = ""
    seconds: float = 0.0


def status() -> list[Waiting]:
    """Return what waits in the outbox, the oldest first. Nothing is sent and MLflow is not imported.

    Raises:
        StoreError: The outbox cannot be read.
    """
    return Outbox().waiting()


def discard(uids: Sequence[str]) -> list[str]:
    """Throw records away that wait in the outbox, such as those for a run that was deleted.

    Args:
        uids: Their uids, or as much of each as tells it from the others.

    Returns:
        The uids of what was thrown away.

    Raises:
        ConfigurationError: One of them is not the beginning of a uid that waits, or of several; nothing is discarded.
        StoreError: The outbox cannot be read, or not be written.
    """
    outbox = Outbox()
    found = [one.uid for one in _named(uids, outbox.waiting())]
    for uid in found:
        outbox.discard(uid)
    return found


def sync(
    uids: Sequence[str] = (),
    *,
    timeout: float = 30.0,
    uri: str | None = None,
    run_id: str | None = None,
    experiment: str | None = None,
    dry_run: bool = False,
) -> list[LogOutcome]:
    """Deliver what waits in the outbox, the oldest first.

    Any number of processes may do this at once; each record is delivered once. A server that does not answer in
    time is not asked again for the other records of this call.

    Args:
        uids: The records to deliver, or as much of each uid as tells it from the others. By default, all.
        timeout: Seconds for each record.
        uri: Deliver everything here, wherever it was meant to go. A run that does not exist there is replaced
            by a new one.
        run_id: The run that the named records go to from now on, since the one that they were for was deleted, say.
        experiment: The experiment in which they get a run of their own from now on. It is created if there is none.
        dry_run: Only say what would be delivered.

    Returns:
        What became of each record. With `dry_run`, all that can be delivered are pending.

    Raises:
        ConfigurationError: An argument cannot be used; the message says which.
        MissingExtraError: MLflow is not installed.
        StoreError: The outbox cannot be read.
    """
    timeout, uri = check_limit(timeout), absolute(uri)
    places = [place for place in (run_id, experiment) if place is not None]
    if places and (not uids or len(places) > 1 or not places[0].strip()):
        raise ConfigurationError("run_id or experiment, one of them, goes with the records that it is for")
    outbox = Outbox()
    waiting = outbox.waiting()
    chosen = _named(uids, waiting) if uids else waiting
    if dry_run:
        return [_sync_one(one, uri=uri, timeout=timeout, dry_run=True) for one in chosen]
    if places:
        for one in chosen:
            _redirect(outbox, one, uri=uri, run_id=run_id, experiment=experiment)
        chosen = [one for one in outbox.waiting() if one.uid in {before.uid for before in chosen}]
    limiter.close_circuits()
    return [_sync_one(one, uri=uri, timeout=timeout, dry_run=False) for one in chosen]


def _named(uids: Sequence[str], waiting: Sequence[Waiting]) -> list[Waiting]:
    found = []
    for uid in uids:
        matches = [one for one in waiting if one.uid.startswith(uid)]
        if len(matches) != 1:
            raise ConfigurationError(f"{len(matches)} records wait whose name begins with {uid!r}; see `mlflow status`")
        found += matches
    return found


def _redirect(outbox: Outbox, waiting: Waiting, *, uri: str | None, run_id: str | None, experiment: str | None) -> None:
    """Send a record elsewhere, unless it is damaged or somebody is delivering it."""
    lease = None if waiting.is_damaged else outbox.lease(waiting.uid)
    if lease is None:
        return
    try:
        record = waiting.read()
        tags = record.tags if record.run_id in (None, run_id) else {MEANT_FOR_TAG: str(record.run_id), **record.tags}
        moved = replace(record, run_id=run_id, experiment=experiment, experiment_id=None, tags=tags)
        outbox.redirect(replace(moved, tracking_uri=uri or record.tracking_uri), written=waiting.written)
    finally:
        lease.release()


def deliver(
    record: Record | Waiting,
    *,
    address: str,
    limit: float,
    unkept: Mapping[str, bytes] | None = None,
    patience: float | None = None,
) -> LogOutcome:
    """Deliver one record within a limit. Nothing is raised: every fault is the outcome's reason.

    Args:
        record: The record, or one that waits in the outbox.
        address: Where to, with credentials. MLflow has been prepared for it.
        limit: Seconds.
        unkept: Its files, where the outbox could not take it; None where it waits there.
        patience: The limit of which this is left; a server that is silent for half of it is left alone for a while.

    Returns:
        What became of it.
    """
    began, progress = time.monotonic(), Progress(record.run_id)
    try:
        whole = record.read() if isinstance(record, Waiting) else record
        run_id = _deliver(whole, address, limit=limit, unkept=unkept, patience=patience, progress=progress)
        outcome = LogOutcome("logged", record.uid, run_id or None)
    except LeaseLostError:
        outcome = LogOutcome("busy", record.uid, progress.run_id, "another thread or process is delivering it")
    except CorruptEntryError as error:
        outcome = LogOutcome("damaged", record.uid, record.run_id, str(error))
        _note(record.uid, outcome.reason)
    except Exception as error:  # noqa: BLE001 - whatever the server or its client does, the caller goes on
        outcome = LogOutcome("pending" if unkept is None else "failed", record.uid, progress.run_id, reason_of(error))
        if unkept is None and not any(isinstance(one, CircuitOpenError) for one in (error, error.__cause__)):
            _note(record.uid, outcome.reason)
    return replace(outcome, seconds=time.monotonic() - began)


def _deliver(
    record: Record,
    address: str,
    *,
    limit: float,
    unkept: Mapping[str, bytes] | None,
    patience: float | None,
    progress: Progress,
) -> str:
    began, bare = time.monotonic(), without_credentials(address)
    elsewhere = record.tracking_uri not in (None, bare)
    until = began + limit * SHARE
    push = Push(record, address, elsewhere, files=unkept or {}, until=until, progress=progress)
    if unkept is not None:
        return limiter.run(lambda: _send(push), target=bare, limit=limit, patience=patience)
    outbox = Outbox()
    lease = outbox.lease(record.uid)
    if lease is None:
        raise LeaseLostError
    try:
        files, sent = outbox.files(record), outbox.sent(record.uid)
        push = replace(push, files=files, sent=sent, holds=lease.holds, note_sent=lease.note_sent)
        left = began + limit - time.monotonic()  # the outbox may have been slow
        return limiter.run(lambda: _send_and_finish(push, lease), target=bare, limit=left, patience=patience or limit)
    finally:
        # Also where the limit has passed and the thread goes on: it may, until somebody else has the record.
        lease.release()


def _send(push: Push) -> str:
    """Deliver a record, from its run to the last file, and return the run; empty for feedback that is in none.

    It may take as long as the server likes, and raises whatever MLflow raises: call it through the limiter.
    """
    if push.record.feedback:
        return feedback.deliver(push)
    run = push.open_run()
    run_id = str(run.info.run_id)
    is_new = bool(push.what_is_missing(run))
    left = attachments.Left(push, run_id)
    # A run stands, and is ended, with its numbers: all else may be refused for ever.
    if is_new:
        model = left.unless(attachments.model_id, push, run)
        push.log_numbers(run_id, model)
        if push.is_in_own_run:
            push.end_run(run_id)
        if not left.faults:  # the data set comes with the model: where it is missing, the next try sends both
            left.unless(attachments.log_inputs, push, run_id, model)
        left.unless(attachments.link_children, push, run)
    left.unless(attachments.upload, push, run)
    left.tell()
    tables = attachments.name_tables(push, run)
    if is_new or tables:
        push.confirm(run_id, tables)
    return run_id


def _send_and_finish(push: Push, lease: Lease) -> str:
    run_id = _send(push)
    try:
        lease.finish()  # here and not after the limit, so that a push that ends late still counts
    except StoreError as error:
        logger.warning(
            "run %s has the results, but their record cannot be taken out of the outbox; the next sync tries that "
            "again, and sends nothing twice: %s",
            *(run_id, error),
        )
    return run_id


def deliver_waiting(address: str, *, until: float) -> None:
    """Deliver what waits for a server that has just taken something, the oldest first, as far as the time allows.

    What has failed several times is left to `sync`, or a record that its server will never take would cost every
    call a try. So is what cannot be read, or names no server.

    Args:
        address: The server, with credentials. MLflow has been prepared for it.
        until: When to stop, on the monotonic clock.
    """
    try:
        waiting = Outbox().waiting()
    except StoreError as error:
        logger.warning("what else waits is not delivered: %s", error)
        return
    server = without_credentials(address)
    for one in waiting:
        left = until - time.monotonic()
        if left < LEAST_LEFT:
            return
        if one.tries < MOST_TRIES and one.tracking_uri == server:
            deliver(one, address=address, limit=left, patience=math.inf)


def _sync_one(waiting: Waiting, *, uri: str | None, timeout: float, dry_run: bool) -> LogOutcome:
    if waiting.is_damaged:
        return LogOutcome("damaged", waiting.uid, None, waiting.reason)
    try:
        address = _usable_uri(waiting.tracking_uri, uri)
    except ConfigurationError as error:
        return LogOutcome("pending", waiting.uid, waiting.run_id, str(error))
    if address is None:
        return LogOutcome("pending", waiting.uid, waiting.run_id, _NOWHERE)
    if dry_run:
        return LogOutcome("pending", waiting.uid, waiting.run_id, f"would go to {without_credentials(address)}")
    began = time.monotonic()
    try:
        client.prepare(address, until=began + timeout)
    except (DatabaseError, DeadlineError) as error:
        return LogOutcome("pending", waiting.uid, waiting.run_id, str(error), time.monotonic() - began)
    return deliver(waiting, address=address, limit=began + timeout - time.monotonic(), patience=timeout)


def _usable_uri(meant_for: str | None, uri: str | None) -> str | None:
    """Return the address with the credentials that were left out of the record, where this process has them."""
    if uri is not None:
        return uri
    # MLflow's default is a database in the working directory, which nobody has asked for here.
    mlflow = sys.modules.get("mlflow")
    try:
        here = absolute(default_uri(mlflow if mlflow is not None and mlflow.is_tracking_uri_set() else None))
    except ConfigurationError:
        if meant_for is None:
            raise
        return meant_for
    if meant_for is None or (here is not None and without_credentials(here) == meant_for):
        return here
    return meant_for


def reason_of(error: Exception) -> str:
    """Return why something failed, in one line: an error of this package says so itself."""
    text = safe_line(error, longest=300)
    return text if isinstance(error, CachectlError) else f"{type(error).__name__}: {text}"


def _note(uid: str, reason: str) -> None:
    try:
        Outbox().fail(uid, reason)
    except StoreError as error:
        # The record itself is safe; only the note about this try is not.
        logger.debug("cannot note why %s was not delivered: %s", uid, error)
