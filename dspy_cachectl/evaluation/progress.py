"""One progress bar for a whole evaluation: answers, score so far, requests, what was spent and saved."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from dspy_cachectl.context.phases import PhaseRun


class EvaluationProgress:
    """A progress bar on stderr. Thread-safe; does nothing where it is not wanted.

    Args:
        total: How many answers there will be: questions times repeats.
        name: What is evaluated.
        shown: Whether to show it.
    """

    def __init__(self, total: int, name: str, *, shown: bool) -> None:
        self._lock = threading.Lock()
        self._total, self._name = total, name
        self._sum, self._count, self._failed = 0.0, 0, 0
        self._progress: Any = None
        self._task: Any = None
        self._run: PhaseRun | None = None
        self._shown = shown

    def __enter__(self) -> EvaluationProgress:
        if self._shown:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[facts]}"),
                console=Console(stderr=True),
            )
            self._task = self._progress.add_task(self._name, total=self._total, facts="")
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def begin(self, run: PhaseRun) -> None:
        """Show the counters of this run from now on."""
        self._run = run

    def scored(self, score: float, *, failed: bool) -> None:
        """Count one more answer."""
        with self._lock:
            self._sum += score
            self._count += 1
            self._failed += failed
            if self._progress is not None:
                self._progress.update(self._task, advance=1, facts=self._facts())

    def _facts(self) -> str:
        parts = [f"score {self._sum / self._count:.3f}"]
        if self._failed:
            parts.append(f"{self._failed} failed")
        if self._run is not None:
            stats = self._run.stats
            parts.append(f"{stats.requests} requests, {stats.served} served")
            parts.append(f"{stats.tokens_spent:,} tokens spent, {stats.tokens_saved:,} saved")
            if stats.cost_spent or stats.cost_saved:
                parts.append(f"${stats.cost_spent:.4f} spent, ${stats.cost_saved:.4f} saved")
        return " · ".join(parts)
