"""Sending what is in the outbox already, for a caller who waits for it no longer than a limit."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.errors import CachectlError
from dspy_cachectl.tracking import client, delivery
from dspy_cachectl.tracking.delivery import LogOutcome
from dspy_cachectl.tracking.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dspy_cachectl.errors import StoreError
    from dspy_cachectl.tracking.outgoing import Outgoing
    from dspy_cachectl.tracking.resolve import Target

logger = logger_for(__name__)

_WORSE = ("logged", "busy", "pending", "damaged", "failed")


class Sending:
    """Some records on their way to a server, the feedback on their results last. `run` in a thread, for it may hang.

    Args:
        kept: The records, and with each why the outbox does not have it.
        target: Where they go.
        until: When to stop, on the monotonic clock.
        patience: How long the caller waits in all, in seconds.
    """

    def __init__(
        self, kept: Sequence[tuple[Outgoing, StoreError | None]], target: Target, *, until: float, patience: float
    ) -> None:
        self._kept = kept
        self._address = target.tracking_uri or ""
        self._problem = target.problem or None
        self._until = until
        self._patience = patience
        self._what = f"the results of {kept[0][0].record.run_name!r}"
        self._lock = threading.Lock()
        self._outcome: LogOutcome | None = None

    def run(self) -> None:
        """Send them, and what else waits for the server if it takes them."""
        missing = self._prepare()
        results = [self._send(one, problem, missing) for one, problem in self._kept if not one.record.feedback]
        worst = max(reversed(results), key=lambda outcome: _WORSE.index(outcome.status))
        if self._settle(worst).status != "logged":
            return  # the feedback waits with the results that it is about
        said = [self._send(one, problem, missing) for one, problem in self._kept if one.record.feedback]
        for outcome in said:
            _warn(outcome, f"all the feedback on {self._what}")
        if all(outcome.status == "logged" for outcome in said):
            delivery.deliver_waiting(self._address, until=self._until)

    def outcome(self) -> LogOutcome:
        """Return what became of the results. Asked for while they are on their way, they wait in the outbox."""
        slow = f"{self._patience:.3g} s were not enough for this machine's own part of it"
        return self._settle(self._unsent(*[pair for pair in self._kept if not pair[0].record.feedback][-1], slow))

    def _settle(self, outcome: LogOutcome) -> LogOutcome:
        """Say what became of the results, once."""
        with self._lock:
            if self._outcome is None:
                self._outcome = outcome
                _warn(outcome, self._what)
            return self._outcome

    def _prepare(self) -> str | None:
        if self._problem is not None:
            return self._problem
        try:
            client.prepare(self._address, until=self._until)
        except CachectlError as error:
            return str(error)
        return None

    def _send(self, outgoing: Outgoing, problem: StoreError | None, missing: str | None) -> LogOutcome:
        if missing is not None:
            return self._unsent(outgoing, problem, missing)
        unkept, left = None if problem is None else outgoing.files, self._until - time.monotonic()
        return delivery.deliver(
            outgoing.record, address=self._address, limit=max(0.0, left), unkept=unkept, patience=self._patience
        )

    def _unsent(self, outgoing: Outgoing, problem: StoreError | None, reason: str) -> LogOutcome:
        record = outgoing.record
        return LogOutcome("pending" if problem is None else "failed", record.uid, record.run_id, reason)


def _warn(outcome: LogOutcome, what: str) -> None:
    if outcome.status == "failed":
        logger.warning("lost to MLflow: %s: %s", what, outcome.reason)
    elif outcome.status != "logged":
        logger.warning(
            "not in MLflow yet: %s: %s. Waiting in the outbox (%s); deliver with "
            "`dspy-cachectl mlflow sync` or dspy_cachectl.tracking.sync().",
            what,
            outcome.reason,
            Outbox().path,
        )
