"""Sending what a long evaluation has finished so far, in a thread of its own: a lost machine takes little with it.

Each time only what is new goes, as a part of its own; the snapshot at the end has all rows, and takes their place.
"""

from __future__ import annotations

import random
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from dspy_cachectl.entries.values import UnstorableError
from dspy_cachectl.errors import StoreError
from dspy_cachectl.predictions import snapshot
from dspy_cachectl.predictions.kept_rows import KeptRows, facts_of

EVERY = 60.0
"""How long to wait at least from one part to the next, in seconds; with many workers longer: they share an index."""

_WORKERS = 20
_SHARE = 20
"""It is a twentieth of the time that the evaluation has taken, where that is longer: a day has some hundred parts."""


class Growth:
    """Sends what a session has kept, from its start until it is stopped.

    Args:
        header: Returns what its rows are predictions of.
        rows: Its rows.
        send: Sends a snapshot. Raises the `StoreError` family.
        failed: Told why something was not sent; it goes with the next part.
    """

    def __init__(
        self,
        header: Callable[[], dict[str, Any]],
        rows: KeptRows,
        send: Callable[[Path], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._header, self._rows, self._send, self._failed = header, rows, send, failed
        self._stopped = threading.Event()
        self._sent = rows.size()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="dspy-cachectl-growing", daemon=True).start()

    def stop(self) -> None:
        """Begin no part any more. Nobody waits for one that is on its way."""
        self._stopped.set()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stopped.wait(self._pause(time.monotonic() - began)):
            try:
                self._send_new()
            except sqlite3.Error:
                return  # the session is closed
            except (StoreError, UnstorableError, OSError) as error:
                self._failed(error)

    def _pause(self, elapsed: float) -> float:
        workers: int = self._header().get("parts", 1)
        return max(EVERY * (1 + workers / _WORKERS), elapsed / _SHARE) * random.uniform(0.9, 1.1)  # noqa: S311

    def _send_new(self) -> None:
        size, header = self._rows.size(), self._header()
        if size == self._sent:
            return
        with closing(KeptRows()) as new, tempfile.TemporaryDirectory(prefix="dspy-cachectl-") as folder:
            for row in self._rows.in_order(self._sent):
                new.put(row)
            its = {name: value for name, value in header.items() if name != "session"}
            facts = {**its, **facts_of(new), "grows": header["session"], "complete": False, "metrics": {}}
            path = Path(folder) / header["file"]
            snapshot.write_snapshot(path, facts, new.in_order(), {})
            self._send(path)
        self._sent = size
