"""Delivering what waits in the outbox: one record within a limit, or all of them, from any process."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal

from dspy_cachectl.errors import StoreError
from dspy_cachectl.tracking import push
from dspy_cachectl.tracking.deadline import CircuitOpenError, DeadlineError, Guard, check_limit
from dspy_cachectl.tracking.outbox import ARTIFACTS, Outbox
from dspy_cachectl.tracking.record import plain_text, without_credentials
from dspy_cachectl.tracking.resolve import absolute, default_uri

if TYPE_CHECKING:
    from dspy_cachectl.tracking.outbox import Entry
    from dspy_cachectl.tracking.record import Record

logger = logging.getLogger(__name__)

guard = Guard()
"""The process's guard: circuits are shared by all that is delivered in it."""


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
) -> Delivery:
    """Deliver one record within a limit. Faults of the server are not raised; they are the delivery's reason.

    Args:
        entry: The record's place in the outbox.
        record: The record.
        tracking_uri: Where to, with credentials. MLflow has been loaded for it.
        limit: Seconds.
        extra_tags: Tags to add.

    Returns:
        What became of it.
    """
    claim = entry.claim()
    if claim is None:
        return Delivery(entry.uid, "busy", record.run_id, str(push.ClaimLostError()))
    bare = without_credentials(tracking_uri)
    elsewhere = record.tracking_uri is not None and record.tracking_uri != bare

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
        run_id = guard.run(job, limit=limit, target=bare)
    except push.ClaimLostError as error:
        return Delivery(entry.uid, "busy", record.run_id, str(error))
    except CircuitOpenError as error:
        claim.release()
        return Delivery(entry.uid, "pending", record.run_id, str(error))
    except Exception as error:  # noqa: BLE001 - whatever the server or its client does, the caller goes on
        claim.release()
        if isinstance(error, push.UnreachableError) and error.slow:
            guard.open_circuit(bare)
        reason = _reason(error)
        _note(entry, reason)
        return Delivery(entry.uid, "pending", record.run_id, reason)
    return Delivery(entry.uid, "delivered", run_id)


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
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    delivery = deliver(entry, record, tracking_uri=address, limit=timeout, extra_tags={"dspy_cachectl.synced_at": now})
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
    return text if isinstance(error, (DeadlineError, push.UnreachableError)) else f"{type(error).__name__}: {text}"


def _note(entry: Entry, reason: str) -> None:
    try:
        entry.fail(reason)
    except OSError as error:
        # The record itself is safe; only the note about this try is not.
        logger.debug("cannot note why %s was not delivered: %s", entry.uid, error)
