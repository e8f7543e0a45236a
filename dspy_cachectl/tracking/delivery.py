"""Delivering what waits in the outbox: one record within a limit, or all of them, from any process."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal

from dspy_cachectl.errors import StoreError
from dspy_cachectl.tracking import push
from dspy_cachectl.tracking.deadline import CircuitOpenError, DeadlineError, Guard, check_limit
from dspy_cachectl.tracking.feedback import FeedbackLeftError
from dspy_cachectl.tracking.outbox import ARTIFACTS, Entry, Outbox
from dspy_cachectl.tracking.record import plain_text, without_credentials
from dspy_cachectl.tracking.resolve import absolute, default_uri

if TYPE_CHECKING:
    from dspy_cachectl.tracking.claims import Claim
    from dspy_cachectl.tracking.record import Record

logger = logging.getLogger(__name__)

guard = Guard()
"""The process's guard: circuits are shared by all that is delivered in it."""

SHARE = 0.8
"""The share of a limit for which feedback is sent, so that it stops before it is taken for a server that hangs."""

LEAST_LEFT = 0.5
"""Seconds of a limit without which no further record is begun."""

MOST_TRIES = 3
"""Failed tries after which a record is only delivered by `sync`."""


@dataclass(frozen=True)
class Waiting:
    """A record in the outbox, as `status()` shows it.

    Attributes:
        uid: Its identity.
        folder: Where it waits.
        written: When it was written, in seconds since 1970.
        tracking_uri: Where it is to go; None if that is not known.
        run_id: The run it is for; None for a run of its own.
        phase: The phase it tells of.
        tries: How many tries to deliver it have failed.
        reason: Why the last one failed, or why the record cannot be read; empty before the first.
        held_by: The process that is delivering it just now, or None.
    """

    uid: str
    folder: str
    written: float
    tracking_uri: str | None
    run_id: str | None
    phase: str | None
    tries: int
    reason: str
    held_by: int | None


@dataclass(frozen=True)
class Delivery:
    """What became of one record.

    Attributes:
        uid: The record.
        status: `"delivered"`; `"pending"`: it goes on waiting, for the reason given; `"busy"`: another thread or
            process is delivering it, or has delivered it meanwhile.
        run_id: The run that holds the results, or is meant to.
        reason: Why it was not delivered.
    """

    uid: str
    status: Literal["delivered", "pending", "busy"]
    run_id: str | None = None
    reason: str = ""


def status() -> list[Waiting]:
    """Return what waits in the outbox, the oldest first. Nothing is sent and MLflow is not imported.

    Raises:
        StoreUnavailableError: The outbox cannot be read.
    """
    return [waiting for entry in Outbox().pending() if (waiting := _describe(entry)) is not None]


def sync(*, timeout: float = 30.0, uri: str | None = None, dry_run: bool = False) -> list[Delivery]:
    """Deliver what waits in the outbox, the oldest first.

    Any number of processes may do this at once; each record is delivered once. A server that does not answer in
    time is not asked again for the other records of this call.

    Args:
        timeout: Seconds for each record.
        uri: Deliver everything here, wherever it was meant to go. A run that does not exist there is replaced
            by a new one.
        dry_run: Only say what would be delivered.

    Returns:
        What became of each record. With `dry_run`, all of them are pending.

    Raises:
        ConfigurationError: The timeout is not a number of seconds.
        MissingExtraError: MLflow is not installed.
        StoreUnavailableError: The outbox cannot be read.
    """
    timeout = check_limit(timeout)
    outbox = Outbox()
    entries = outbox.pending()
    if dry_run:
        return [_rehearse(entry, uri) for entry in entries]
    if not entries:
        return []
    push.load()
    given_up: set[str] = set()
    deliveries = [_sync_one(entry, uri=uri, timeout=timeout, given_up=given_up) for entry in entries]
    outbox.sweep()
    return deliveries


def deliver(
    entry: Entry,
    record: Record,
    *,
    tracking_uri: str,
    limit: float,
    extra_tags: dict[str, str] | None = None,
    trips: bool = True,
) -> Delivery:
    """Deliver one record within a limit. Faults of the server are not raised; they are the delivery's reason.

    Args:
        entry: The record's place in the outbox.
        record: The record.
        tracking_uri: Where to, with credentials. MLflow has been loaded for it.
        limit: Seconds.
        extra_tags: Tags to add.
        trips: Whether a server that does not answer in time is left alone for a while.

    Returns:
        What became of it.
    """
    claim = _claim(entry, record)
    if claim is None:
        return Delivery(entry.uid, "busy", record.run_id, str(push.ClaimLostError()))
    bare = without_credentials(tracking_uri)
    elsewhere = record.tracking_uri is not None and record.tracking_uri != bare
    until = time.monotonic() + limit * SHARE

    def job() -> str:
        # The part after the push is here and not below, so that a push that ends late still counts.
        try:
            run_id = push.push(
                record,
                tracking_uri=tracking_uri,
                elsewhere=elsewhere,
                extra_tags=extra_tags,
                still_ours=claim.holds,
                files=entry.folder / ARTIFACTS,
                until=until,
            )
        except push.ClaimLostError as lost:
            receipt = entry.receipt()
            if lost.created is not None and receipt is not None and receipt["run_id"] != lost.created:
                push.discard(lost.created, tracking_uri=tracking_uri)
            raise
        else:
            if claim.holds():
                entry.finish(run_id=run_id, tracking_uri=bare)
            return run_id
        finally:
            claim.release()

    try:
        run_id = guard.run(job, limit=limit, target=bare, trips=trips)
    except push.ClaimLostError as error:
        return Delivery(entry.uid, "busy", record.run_id, str(error))
    except CircuitOpenError as error:
        claim.release()
        return Delivery(entry.uid, "pending", record.run_id, str(error))
    except Exception as error:  # noqa: BLE001 - whatever the server or its client does, the caller goes on
        claim.release()
        if trips and isinstance(error, push.UnreachableError) and error.slow:
            guard.open_circuit(bare)
        reason = _reason(error)
        _note(entry, reason)
        return Delivery(entry.uid, "pending", record.run_id, reason)
    return Delivery(entry.uid, "delivered", run_id or None)


class _Claims:
    """Several claims as one. Strictly private."""

    def __init__(self, claims: list[Claim]) -> None:
        self._claims = claims

    def holds(self) -> bool:
        return all(claim.holds() for claim in self._claims)

    def release(self) -> None:
        for claim in self._claims:
            claim.release()


def _claim(entry: Entry, record: Record) -> Claim | _Claims | None:
    mine = entry.claim()
    owner = Entry(entry.root, record.owner) if record.owner is not None else None
    if mine is None or owner is None or not owner.waits:
        return mine
    # Whoever delivers either of them may have to create the run that both are for.
    others = owner.claim()
    if others is None:
        mine.release()
        return None
    return _Claims([mine, others])


def deliver_waiting(tracking_uri: str, *, limit: float) -> None:
    """Deliver what waits for a server that has just taken something, the oldest first, as far as a limit allows.

    What has failed several times is left to `sync`, or a record that its server will never take would cost every
    call a try.

    Args:
        tracking_uri: The server, with credentials. MLflow has been loaded for it.
        limit: Seconds for all of them.
    """
    until = time.monotonic() + limit
    bare = without_credentials(tracking_uri)
    try:
        entries = Outbox().pending()
    except StoreError as error:
        logger.warning("what else waits is not delivered: %s", error)
        return
    for entry in entries:
        left = until - time.monotonic()
        if left < LEAST_LEFT:
            return
        failure = entry.failure()
        if failure is not None and failure.tries >= MOST_TRIES:
            continue
        try:
            record = entry.read()
        except StoreError:
            continue  # `status` and `sync` say why
        address = _usable_uri(record, None)
        if address is not None and without_credentials(address) == bare:
            deliver(entry, record, tracking_uri=tracking_uri, limit=left, extra_tags=_late_tags(), trips=False)


def _late_tags() -> dict[str, str]:
    return {"dspy_cachectl.synced_at": datetime.now(timezone.utc).isoformat(timespec="seconds")}


def _sync_one(entry: Entry, *, uri: str | None, timeout: float, given_up: set[str]) -> Delivery:
    try:
        record = entry.read()
    except StoreError as error:
        return Delivery(entry.uid, "pending" if entry.waits else "busy", None, str(error))
    address = _usable_uri(record, uri)
    if address is None:
        return Delivery(
            entry.uid, "pending", record.run_id, "it names no tracking server: give --uri, or set MLFLOW_TRACKING_URI"
        )
    bare = without_credentials(address)
    if bare in given_up:
        return Delivery(entry.uid, "pending", record.run_id, f"{bare} did not answer for an earlier record")
    push.load(address)
    guard.close_circuit(bare)
    delivery = deliver(entry, record, tracking_uri=address, limit=timeout, extra_tags=_late_tags())
    if guard.cooling(bare) > 0:
        given_up.add(bare)
    return delivery


def _usable_uri(record: Record, uri: str | None) -> str | None:
    """Return the address with the credentials that were left out of the record, where this process has them."""
    if uri is not None:
        return absolute(uri)
    here = _configured_uri()
    if record.tracking_uri is None or (here is not None and without_credentials(here) == record.tracking_uri):
        return here
    return record.tracking_uri


def _configured_uri() -> str | None:
    # MLflow's default is a database in the working directory, which nobody has asked for here.
    mlflow = sys.modules.get("mlflow")
    if mlflow is not None and mlflow.is_tracking_uri_set():
        return absolute(default_uri(mlflow))
    return absolute(default_uri(None))


def _rehearse(entry: Entry, uri: str | None) -> Delivery:
    try:
        record = entry.read()
    except StoreError as error:
        return Delivery(entry.uid, "pending", None, str(error))
    address = _usable_uri(record, uri)
    where = without_credentials(address) if address else "nowhere: it names no tracking server"
    return Delivery(entry.uid, "pending", record.run_id, f"would go to {where}")


def _describe(entry: Entry) -> Waiting | None:
    failure, holder = entry.failure(), entry.holder()
    tries, reason = (failure.tries, failure.reason) if failure else (0, "")
    uri = run_id = phase = None
    try:
        record = entry.read()
        uri, run_id, phase = record.tracking_uri, record.run_id, record.tags.get("dspy_cachectl.phase")
    except StoreError as error:
        if not entry.waits:
            return None  # delivered while we looked
        reason = str(error)
    held_by = holder.pid if holder else None
    return Waiting(entry.uid, str(entry.folder), entry.written, uri, run_id, phase, tries, reason, held_by)


def _reason(error: Exception) -> str:
    text = plain_text(error, longest=300)
    return (
        text
        if isinstance(error, (DeadlineError, FeedbackLeftError, push.UnreachableError))
        else f"{type(error).__name__}: {text}"
    )


def _note(entry: Entry, reason: str) -> None:
    try:
        entry.fail(reason)
    except OSError as error:
        # The record itself is safe; only the note about this try is not.
        logger.debug("cannot note why %s was not delivered: %s", entry.uid, error)
