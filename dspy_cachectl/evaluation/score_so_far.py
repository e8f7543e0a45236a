"""What the progress bar of an evaluation says: answers, score so far, requests, what was spent and saved."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dspy_cachectl.context.phases import PhaseRun


class ScoreSoFar:
    """The score so far. Thread-safe.

    Args:
        total: How many answers there will be: questions times repeats.
        run: Whose counters are shown.
        show: Shows how many answers there are, of how many, and asks for facts where it shows them.
    """

    def __init__(self, total: int, run: PhaseRun, show: Callable[..., None]) -> None:
        self._lock = threading.Lock()
        self._total, self._run, self._show = total, run, show
        self._sum, self._count, self._failed = 0.0, 0, 0

    def add(self, score: float, *, failed: bool) -> None:
        """Count one more answer."""
        with self._lock:
            self._sum += score
            self._count += 1
            self._failed += failed
            self._show(self._count, self._total, self._facts)

    def _facts(self) -> str:
        stats = self._run.stats
        parts = [f"score {self._sum / self._count:.3f}"]
        if self._failed:
            parts.append(f"{self._failed} failed")
        parts.append(f"{stats.requests} requests, {stats.served} served")
        parts.append(f"{stats.tokens_spent:,} tokens spent, {stats.tokens_saved:,} saved")
        if stats.cost_spent or stats.cost_saved:
            parts.append(f"${stats.cost_spent:.4f} spent, ${stats.cost_saved:.4f} saved")
        return " · ".join(parts)
