"""Delivering what waits in the outbox: one record within a limit, or all of them, from any process."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal

from dspy_cachectl.errors import ConfigurationError, CorruptEntryError, StoreError
from dspy_cachectl.tracking import client
from dspy_cachectl.tracking.deadline import CircuitOpenError, DeadlineError, TimeLimiter, check_limit
from dspy_cachectl.tracking.feedback import FeedbackLeftError
from dspy_cachectl.tracking.outbox import Lease, Outbox, WaitingRecord
from dspy_cachectl.tracking.push import LeaseLostError, Push
from dspy_cachectl.tracking.record import Record, safe_line, without_credentials
from dspy_cachectl.tracking.resolve import absolute, default_uri
from dspy_cachectl.tracking.send import send

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

logger = logging.getLogger(__name__)

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
class Waiting:
    """A record in the outbox, as `status()` shows it.

    Attributes:
        uid: Its identity.
        written: When it was written, in seconds since 1970.
        tracking_uri: Where it is to go; None if that is not known.
        run_id: The run it is for; None for a run of its own.
        phase: The phase it tells of.
        tries: How many tries to deliver it have failed.
        reason: Why the last one failed, or why the record cannot be read; empty before the first.
        being_delivered: Whether somebody is delivering it just now.
    """

    uid: str
    written: float
    tracking_uri: str | None
    run_id: str | None
    phase: str | None
    tries: int
    reason: str
    being_delivered: bool


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
    return [_describe(waiting) for waiting in Outbox().waiting()]


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
    waiting = [one.uid for one in outbox.waiting()]
    found = []
    for uid in uids:
        matches = [one for one in waiting if one.startswith(uid)]
        if len(matches) != 1:
            raise ConfigurationError(f"{len(matches)} records wait whose name begins with {uid!r}; see `mlflow status`")
        found += matches
    for uid in found:
        outbox.discard(uid)
    return found


def sync(*, timeout: float = 30.0, uri: str | None = None, dry_run: bool = False) -> list[LogOutcome]:
    """Deliver what waits in the outbox, the oldest first.

    Any number of processes may do this at once; each record is delivered once. A server that does not answer in
    time is not asked again for the other records of this call.

    Args:
        timeout: Seconds for each record.
        uri: Deliver everything here, wherever it was meant to go. A run that does not exist there is replaced
            by a new one.
        dry_run: Only say what would be delivered.

    Returns:
        What became of each record. With `dry_run`, all that can be delivered are pending.

    Raises:
        ConfigurationError: The timeout is not a number of seconds.
        MissingExtraError: MLflow is not installed.
        StoreError: The outbox cannot be read.
    """
    timeout = check_limit(timeout)
    waiting = Outbox().waiting()
    if waiting and not dry_run:
        client.load()
    given_up: set[str] = set()
    return [_sync_one(one, uri=uri, timeout=timeout, given_up=given_up, dry_run=dry_run) for one in waiting]


def deliver(
    record: Record,
    *,
    address: str,
    limit: float,
    unkept: Mapping[str, bytes] | None = None,
    trips: bool = True,
) -> LogOutcome:
    """Deliver one record within a limit. Nothing is raised: every fault is the outcome's reason.

    Args:
        record: The record.
        address: Where to, with credentials. MLflow has been loaded for it.
        limit: Seconds.
        unkept: Its files, where the outbox could not take it; None where it waits there.
        trips: Whether a server that does not answer in time is left alone for a while.

    Returns:
        What became of it.
    """
    began = time.monotonic()
    try:
        run_id = _deliver(record, address, limit=limit, unkept=unkept, trips=trips)
        outcome = LogOutcome("logged", record.uid, run_id or None)
    except LeaseLostError as error:
        outcome = LogOutcome("busy", record.uid, record.run_id, str(error))
    except CorruptEntryError as error:
        outcome = LogOutcome("damaged", record.uid, record.run_id, str(error))
    except Exception as error:  # noqa: BLE001 - whatever the server or its client does, the caller goes on
        outcome = LogOutcome("pending", record.uid, record.run_id, _reason(error))
        if unkept is None and not isinstance(error, CircuitOpenError):
            _note(record, outcome.reason)
    return replace(outcome, seconds=time.monotonic() - began)


def _deliver(record: Record, address: str, *, limit: float, unkept: Mapping[str, bytes] | None, trips: bool) -> str:
    bare = without_credentials(address)
    elsewhere = record.tracking_uri is not None and record.tracking_uri != bare
    push = Push(record, address, elsewhere, files=unkept or {}, until=time.monotonic() + limit * SHARE)
    if unkept is not None:
        return _within_limit(lambda: send(push), bare, limit=limit, trips=trips)
    outbox = Outbox()
    lease = outbox.lease(record.uid)
    if lease is None:
        raise LeaseLostError
    try:
        push = replace(push, files=outbox.files(record), holds=lease.holds)
        return _within_limit(lambda: _send_and_finish(push, lease), bare, limit=limit, trips=trips)
    finally:
        # Also where the limit has passed and the thread goes on: it may, until somebody else has the record.
        lease.release()


def _within_limit(work: Callable[[], str], target: str, *, limit: float, trips: bool) -> str:
    try:
        return limiter.run(work, limit=limit, target=target, trips=trips)
    except client.UnreachableError as error:
        if trips and error.slow:
            limiter.open_circuit(target)
        raise


def _send_and_finish(push: Push, lease: Lease) -> str:
    run_id = send(push)
    try:
        lease.finish()  # here and not after the limit, so that a push that ends late still counts
    except StoreError as error:
        logger.warning(
            "run %s has the results, but the outbox still has their record, and the next sync sends it again, "
            "which changes nothing: %s",
            *(run_id, error),
        )
    return run_id


def deliver_waiting(address: str, *, until: float) -> None:
    """Deliver what waits for a server that has just taken something, the oldest first, as far as the time allows.

    What has failed several times is left to `sync`, or a record that its server will never take would cost every
    call a try.

    Args:
        address: The server, with credentials. MLflow has been loaded for it.
        until: When to stop, on the monotonic clock.
    """
    try:
        waiting = Outbox().waiting()
    except StoreError as error:
        logger.warning("what else waits is not delivered: %s", error)
        return
    for one in waiting:
        left = until - time.monotonic()
        if left < LEAST_LEFT:
            return
        record = _due(one, address)
        if record is not None:
            deliver(_late(record), address=address, limit=left, trips=False)


def _due(waiting: WaitingRecord, address: str) -> Record | None:
    if waiting.tries >= MOST_TRIES:
        return None
    try:
        record = waiting.read()
    except StoreError:
        return None  # `status` and `sync` say why
    meant_for = _usable_uri(record, None)
    same = meant_for is not None and without_credentials(meant_for) == without_credentials(address)
    return record if same else None


def _late(record: Record) -> Record:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return replace(record, tags={**record.tags, "dspy_cachectl.synced_at": now})


def _sync_one(
    waiting: WaitingRecord, *, uri: str | None, timeout: float, given_up: set[str], dry_run: bool
) -> LogOutcome:
    try:
        record = waiting.read()
    except CorruptEntryError as error:
        return LogOutcome("damaged", waiting.uid, None, str(error))
    except StoreError as error:
        return LogOutcome("pending", waiting.uid, None, str(error))
    address = _usable_uri(record, uri)
    bare = None if address is None else without_credentials(address)
    if address is None or bare is None:
        return LogOutcome("pending", record.uid, record.run_id, _NOWHERE)
    if dry_run:
        return LogOutcome("pending", record.uid, record.run_id, f"would go to {bare}")
    if bare in given_up:
        return LogOutcome("pending", record.uid, record.run_id, f"{bare} did not answer for an earlier record")
    client.load(address)
    limiter.close_circuit(bare)
    outcome = deliver(_late(record), address=address, limit=timeout)
    if limiter.cooling(bare) > 0:
        given_up.add(bare)
    return outcome


def _usable_uri(record: Record, uri: str | None) -> str | None:
    """Return the address with the credentials that were left out of the record, where this process has them."""
    if uri is not None:
        return absolute(uri)
    # MLflow's default is a database in the working directory, which nobody has asked for here.
    mlflow = sys.modules.get("mlflow")
    here = absolute(default_uri(mlflow if mlflow is not None and mlflow.is_tracking_uri_set() else None))
    if record.tracking_uri is None or (here is not None and without_credentials(here) == record.tracking_uri):
        return here
    return record.tracking_uri


def _describe(waiting: WaitingRecord) -> Waiting:
    uri = run_id = phase = None
    reason = waiting.reason
    try:
        record = waiting.read()
        uri, run_id, phase = record.tracking_uri, record.run_id, record.tags.get("dspy_cachectl.phase")
    except StoreError as error:
        reason = str(error)
    return Waiting(waiting.uid, waiting.written, uri, run_id, phase, waiting.tries, reason, waiting.is_held)


def _reason(error: Exception) -> str:
    text = safe_line(error, longest=300)
    ours = (DeadlineError, FeedbackLeftError, client.UnreachableError, StoreError)
    return text if isinstance(error, ours) else f"{type(error).__name__}: {text}"


def _note(record: Record, reason: str) -> None:
    try:
        Outbox().fail(record.uid, reason)
    except StoreError as error:
        # The record itself is safe; only the note about this try is not.
        logger.debug("cannot note why %s was not delivered: %s", record.uid, error)
