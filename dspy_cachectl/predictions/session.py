"""One evaluation at work on a library: what is kept already, and what it adds."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from dspy_cachectl.boundary.secrets import scrub, without
from dspy_cachectl.context.process import state
from dspy_cachectl.entries import values
from dspy_cachectl.errors import ConfigurationError, FormatVersionError, StoreError
from dspy_cachectl.fingerprints.data import Question
from dspy_cachectl.predictions.growing import Growth
from dspy_cachectl.predictions.journal import Journal
from dspy_cachectl.predictions.kept_rows import KeptRows
from dspy_cachectl.predictions.keys import SnapshotKey
from dspy_cachectl.predictions.rows import PredictionRow, Score, decode, encode

Status = Literal["computed", "loaded", "extended"]


def score_in(scores: Mapping[str, Score], question: Question, metric: str) -> Score | None:
    """Return what a metric said of an answer, given all that was said, or None: see `Session.score`."""
    found = scores.get(metric)
    return found if found is not None and found.label_key == question.label_key else None


@dataclass(eq=False)
class Session:
    """The predictions of one run over one data set. Thread-safe; made by `Library.open`.

    Used as a context manager: what was kept survives an exception, and a kill.

    Attributes:
        key: What the predictions depend on.
        questions: The questions, in the order of the data set.
        run_id: The run that the predictions are draws of: draw the missing ones under it.
        repeats: How many answers to each question are asked for.
        status: `"loaded"` if every answer was there, `"extended"` if some were, `"computed"` if none was.
        changes: In words, why answers are missing: what differs from the nearest predictions of the library.
        path: Where the snapshot is written.
        kept_at: Returns where it is, or None where it is nowhere any more.
        using: The names of the files that the kept answers came from.
        forced: Whether everything was to be drawn anew.
        metrics: The hashes of the metrics that the snapshot has scores of, by their names.
        kept_before: How many of the answers that are asked for were there.
        part: Which part of the questions is asked, and of how many.
        growth: Sends what it has kept so far; None where nothing is sent.
    """

    key: SnapshotKey
    questions: Sequence[Question]
    run_id: str
    repeats: int
    path: Path
    using: tuple[str, ...]
    changes: list[str]
    forced: bool
    is_finished: bool
    metrics: Mapping[str, Any]
    kept: KeptRows
    journal: Journal
    write: Callable[..., None]
    kept_at: Callable[[], Path | None]
    kept_before: int
    part: tuple[int, int] = (0, 1)
    growth: Growth | None = None
    _id: str = field(default_factory=lambda: uuid.uuid4().hex)
    _changed: bool = False
    _is_closed: bool = False
    # What is kept while a snapshot is written is either in it, or still in the journal.
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @cached_property
    def header(self) -> dict[str, Any]:
        """What its rows are predictions of, for the snapshot and the journal."""
        return {
            "key": self.key.as_dict(),
            "base": self.key.base,
            "hash": self.key.hash,
            "run_id": self.run_id,
            "forced": self.forced,
            "repeats": self.repeats,
            "questions": len(self.questions),
            "file": self.path.name,
            "using": list(self.using),
            **({"parts": self.part[1]} if self.part[1] > 1 else {}),
            **({"session": self._id} if self.growth is not None else {}),
        }

    @property
    def status(self) -> Status:
        """See the class. It says what was there when the session began."""
        wanted = len(range(self.part[0], len(self.questions), self.part[1])) * self.repeats
        return "computed" if not self.kept_before else "loaded" if self.kept_before >= wanted else "extended"

    def kept_row(self, question: Question, repeat: int = 0) -> PredictionRow | None:
        """Return the answer to a question, or None where it has to be computed. Errors count as not answered."""
        with self._lock:
            place = (question.example_key, question.occurrence, repeat)
            encoded = None if self._is_closed else self.kept.get(place)
        row = None if encoded is None else decode(encoded, is_sound=True)
        return None if row is None or row.error is not None else row

    def score(self, question: Question, repeat: int, metric: str) -> Score | None:
        """Return what a metric said of an answer, or None where it never judged it against this label.

        Args:
            question: The question.
            repeat: Which of its answers.
            metric: The `metric_fingerprint`.
        """
        row = self.kept_row(question, repeat)
        return None if row is None else score_in(row.scores, question, metric)

    def keep(self, row: PredictionRow) -> None:
        """Keep an answer. It is on the disk when this returns, unless that failed and was said.

        One that comes when the session is closed, of a call that was in the air when the evaluation was cut short, is
        written to the journal, where the next session finds it.

        Raises:
            ConfigurationError: If it answers no question of the data set.
            values.UnstorableError: If it holds something that has no stored form.
        """
        if not row.created:
            row = replace(row, created=time.time())
        encoded = encode(row)
        with self._lock:
            if not self._is_closed:
                if encoded == self.kept.get(row.row_key):
                    return
                if not self.kept.put(encoded):
                    raise ConfigurationError(
                        f"no question of the data set has the key {row.example_key!r}: pass what questions_of() gives "
                        "for it"
                    )
                self._changed = True
            self._try(lambda: self.journal.keep(self._id, self.header, row.row_key, encoded))
            if self._is_closed:
                self._try(self.journal.close)

    def keep_score(
        self,
        question: Question,
        repeat: int,
        metric: str,
        score: Score,
        *,
        reference: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep what a metric said of an answer that is kept.

        Args:
            question: The question.
            repeat: Which of its answers.
            metric: The `metric_fingerprint`.
            score: What the metric said, with the question's `label_key`.
            reference: What is expected now, where it differs from what the row says.
        """
        row = self.kept_row(question, repeat)
        if row is not None:
            scored = replace(row, scores={**row.scores, metric: score}, reference=reference or row.reference)
            with suppress(values.UnstorableError):  # it is too large now: the answer stays as it is
                self.keep(scored)

    def finish(
        self, metadata: Mapping[str, Any] | None = None, metrics: Mapping[str, Any] | None = None
    ) -> Path | None:
        """Write the snapshot: everything kept, and what other processes kept of the same run meanwhile.

        Args:
            metadata: More to say about the predictions: seconds, versions, tokens. Secrets are left out.
            metrics: What was found: scores by name.

        Returns:
            The snapshot, or None where it could not be written; what was kept is in the journal then.
        """
        with self._lock:
            return self._save({**(metadata or {}), "complete": True}, metrics or {})

    def close(self) -> None:
        """Let go of the library. Answers of an evaluation that was not finished are kept as a part of a snapshot."""
        if self.growth is not None:
            self.growth.stop()
        with self._lock:
            if self._changed:
                self._save({"complete": False}, {})
                self._changed = False  # what could not be written is in the journal
            self._is_closed = True
            self._try(self.journal.close)
            self.kept.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _save(self, metadata: Mapping[str, Any], metrics: Mapping[str, Any]) -> Path | None:
        hashes = {name: one.get("metric_hash") if isinstance(one, dict) else None for name, one in metrics.items()}
        is_known = all(self.metrics.get(name) == its for name, its in hashes.items())
        kept_at = self.kept_at() if self.is_finished and not self._changed and is_known else None
        if kept_at is not None:
            return kept_at
        more, found = (without(dict(given), text=scrub) for given in (metadata, metrics))
        if not self._try(lambda: self.write(self.header, more, found, self.kept)):
            return None
        if self._changed:
            self._changed = False
            self._try(lambda: self.journal.settle(self._id))
        self.is_finished = bool(metadata["complete"])
        return self.path

    def _try(self, write: Callable[[], None]) -> bool:
        """Write to the disk. Where that fails, the evaluation goes on without, and it is said."""
        try:
            write()
        except (StoreError, values.UnstorableError) as error:
            advice = "" if isinstance(error, FormatVersionError) else "Make room or name another folder. "
            state.say_once(
                f"predictions:{self.path.parent}",
                f"the predictions are not written, and the evaluation goes on without: {error}. "
                f"{advice}Further failures are not said",
            )
            return False
        return True
