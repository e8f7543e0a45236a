"""What the tests of faults share: questions, two passages of a phase, and what was logged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.stores import MemoryStore, Store
from dspy_cachectl.stores.disk import DiskStore
from tests.endpoint import Endpoint

MakeLM = Callable[..., cachectl.LM]

PHASES = ["compile", "eval"]
OLD = ["old question 1", "old question 2"]
NEW = ["new question 1", "new question 2"]
PATIENCE = 0.2
"""Seconds that the stores of these tests wait for a lock: enough to wait, too little to hold a test up."""


class Scene:
    """A store in a folder, an LM on the counting endpoint, and a phase to pass through again and again.

    The endpoint answers the k-th asking of a question with `<question>, draw k`: an answer says by itself whether
    it was stored before or bought anew.
    """

    def __init__(
        self, name: str, folder: Path, make_lm: MakeLM, endpoint: Endpoint, log: pytest.LogCaptureFixture
    ) -> None:
        self.name = name
        self.folder = folder
        self.endpoint = endpoint
        self.runs: list[cachectl.PhaseRun] = []
        self._make_lm = make_lm
        self._log = log
        draws = {question: [f"{question}, draw {k}" for k in range(10)] for question in OLD + NEW}
        endpoint.configure(answers=draws, deterministic_at_zero=False)

    def install(self, *, memory: bool = False, **options: Any) -> None:
        """Use the folder as a process does that has just begun."""
        cachectl.uninstall()
        disk = DiskStore(self.folder, **{"patience": PATIENCE, **options})
        stores: list[Store] = [MemoryStore(), disk] if memory else [disk]
        cachectl.install(stores)
        self.lm = self._make_lm()

    def ask(self, questions: Sequence[str]) -> list[str]:
        """Ask in a new passage of the phase; of the same run, where it has one."""
        with cachectl.phase(self.name, **({"run_id": "run-1"} if self.name == "eval" else {})) as run:
            answers = [self.lm(question)[0] for question in questions]
        self.runs.append(run)
        return answers

    def expect(self, answers: Sequence[str], *, requests: int) -> None:
        """Ask what these answers are to in a new passage: it gets them, and they take so many requests."""
        with self.endpoint.counting() as seen:
            assert answers == self.ask([answer.rpartition(", draw ")[0] for answer in answers])
        assert requests == seen.requests

    @property
    def stats(self) -> cachectl.Stats:
        """What the last passage counted."""
        return self.runs[-1].stats

    @property
    def served(self) -> int:
        """How many calls of the last passage were served from the store."""
        return self.stats.reused + self.stats.resumed

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many calls of the last passage were served, and how many writes and reads of it failed."""
        return self.served, self.stats.failed_writes, self.stats.failed_reads

    def key(self, question: str) -> str:
        """The key of the last call that asked a question."""
        calls = [call for call in self.lm.history if call["prompt"] == question]
        return str(calls[-1]["cachectl"]["key"])

    @property
    def warnings(self) -> list[str]:
        """What was logged as a warning, by what failed: `read`, `write`, or the message."""
        messages = [
            record.getMessage()
            for record in self._log.records
            if record.name == "dspy_cachectl" and record.levelno >= logging.WARNING
        ]
        kinds = {"a read of the store failed": "read", "a write of the store failed": "write"}
        return [next((kind for start, kind in kinds.items() if text.startswith(start)), text) for text in messages]


def first(questions: Sequence[str], draw: int = 0) -> list[str]:
    """The answers to questions that are asked for the first time, or after so many other times."""
    return [f"{question}, draw {draw}" for question in questions]
