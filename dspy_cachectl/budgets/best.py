"""The best of the programs that were scored while a budget was open, as far as nothing was refused."""

from __future__ import annotations

import threading
from typing import Any

from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.errors import BudgetExceededError


class Best:
    """The best program so far: of two that were scored on unequally many questions that of more. Thread-safe."""

    def __init__(self) -> None:
        self._lock = free_after_fork(threading.Lock())
        self._found: tuple[int, float, Any] | None = None
        self._scores: dict[int, tuple[Any, list[float | None]]] = {}

    def note(self, program: Any, count: int, score: float) -> None:
        """Note the score of a program, in percent, on so many questions."""
        with self._lock:
            if self._found is None or (count, score) > self._found[:2]:
                copied = program.deepcopy() if hasattr(program, "deepcopy") else program
                self._found = count, score, copied

    def add(self, program: Any, score: float | None) -> None:
        """Note what a program got for one question more, in percent; None where a call was refused."""
        with self._lock:
            _, scores = self._scores.setdefault(id(program), (program, []))
            scores.append(score)
            known = [one for one in scores if one is not None]
        if len(known) == len(scores):
            self.note(program, len(scores), sum(known) / len(scores))

    def give(self, error: BudgetExceededError) -> None:
        """Let an error carry it."""
        with self._lock:
            if self._found is not None:
                _, error.score, error.best = self._found
