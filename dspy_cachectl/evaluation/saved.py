"""What an evaluation finds in the prediction library, and what it leaves there."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dspy

from dspy_cachectl.entries.values import UnstorableError
from dspy_cachectl.errors import ConfigurationError, CorruptEntryError
from dspy_cachectl.evaluation.draws import UnitLog
from dspy_cachectl.evaluation.metrics import Scored
from dspy_cachectl.fingerprints.canonical import UnstableError, text
from dspy_cachectl.fingerprints.data import Question
from dspy_cachectl.predictions.keys import SnapshotKey
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.predictions.outputs import output_of, restore
from dspy_cachectl.predictions.rows import PredictionRow, Score, readable
from dspy_cachectl.predictions.session import Session
from dspy_cachectl.reports.measurement import DrawResult
from dspy_cachectl.reports.report import EvalReport

Predictions = bool | str | os.PathLike[str] | Library


class Saved:
    """The kept predictions of one evaluation. Thread-safe.

    Args:
        session: The library's session; None where nothing is kept.
        program: The program, for the types of its fields.
        library: The library; None where nothing is kept.
    """

    def __init__(self, session: Session | None, program: Any, library: Library | None = None) -> None:
        self._session = session
        self._library = library
        self._program = program
        self._lock = threading.Lock()
        self.unsaved = 0

    @classmethod
    @contextmanager
    def open(
        cls,
        predictions: Predictions,
        key: SnapshotKey,
        program: Any,
        questions: Sequence[Question],
        *,
        repeats: int,
        run_id: str | None,
        max_age: float | None,
        force: bool,
    ) -> Iterator[Saved]:
        """Begin: find what is kept of this evaluation."""
        library = _library(predictions)
        if library is None:
            yield cls(None, program)
            return
        with library.open(
            key, questions, repeats=repeats, run_id=run_id, max_age=max_age, force_recompute=force
        ) as session:
            yield cls(session, program, library)

    @property
    def run_id(self) -> str | None:
        """The run whose draws are kept, or under which they are to be drawn; None where nothing is kept."""
        return None if self._session is None else self._session.run_id

    @property
    def status(self) -> str:
        """`"computed"`, `"extended"`, `"loaded"`, or `"off"` where nothing is kept."""
        return "off" if self._session is None else self._session.status

    @property
    def changes(self) -> tuple[str, ...]:
        """Why answers had to be computed, in words."""
        return () if self._session is None else tuple(self._session.changes)

    @property
    def file_name(self) -> str | None:
        """The name of the snapshot's file, or None."""
        return None if self._session is None else self._session.path.name

    def prediction(self, question: Question, repeat: int) -> tuple[Any, DrawResult] | None:
        """Return a kept answer as the program returned it, with what it was made of; None where there is none."""
        row = None if self._session is None else self._session.saved(question, repeat)
        if row is None or row.output is None:
            return None
        try:
            prediction = restore(row.output, self._program)
        except CorruptEntryError:
            return None  # the field's type has changed with the program; it is computed again
        tokens = (row.prompt_tokens or 0) + (row.completion_tokens or 0)
        return prediction, DrawResult(
            score=0.0,
            draw="+".join(map(str, row.draws)),
            output=output_hash(prediction),
            loaded=True,
            tokens=tokens,
            cost=row.cost or 0.0,
            seconds=row.seconds or 0.0,
            oldest=row.created,
            newest=row.created,
        )

    def keep(self, question: Question, repeat: int, example: dspy.Example, prediction: Any, made: UnitLog) -> None:
        """Keep an answer at once. One that has no stored form is counted; its LM answers are in the store."""
        if self._session is None:
            return
        try:
            output = output_of(prediction, self._program)
        except UnstorableError as error:
            self._count_unsaved(error)
            return
        row = PredictionRow(
            example_key=question.example_key,
            occurrence=question.occurrence,
            repeat=repeat,
            inputs=readable(dict(example.inputs().items())),
            output=output,
            reference=readable(dict(example.labels().items())),
            draws=tuple(made.draws),
            cost=made.cost,
            prompt_tokens=made.prompt_tokens,
            completion_tokens=made.completion_tokens,
            seconds=made.seconds,
            created=made.oldest or time.time(),
        )
        if not self._session.keep(row):
            with self._lock:
                self.unsaved += 1

    def score(self, question: Question, repeat: int, metric: str) -> Scored | None:
        """Return a kept score, or None where the metric has not judged this answer against this label."""
        found = None if self._session is None else self._session.score(question, repeat, metric)
        return None if found is None or found.score is None else Scored(found.score)

    def keep_score(self, question: Question, repeat: int, metric: str, scored: Scored, example: dspy.Example) -> None:
        """Keep a score."""
        if self._session is not None:
            self._session.keep_score(
                question,
                repeat,
                metric,
                Score(label_key=question.label_key, score=scored.score),
                reference=readable(dict(example.labels().items())),
            )

    def finish(self, report: EvalReport) -> Path | None:
        """Write the snapshot. Return where it is, or None."""
        if self._session is None:
            return None
        provenance = report.provenance
        metadata = {
            "evaluation_seconds": provenance.seconds,
            "phase": provenance.phase,
            "policy": provenance.policy,
            "metric": provenance.metric,
            "versions": dict(provenance.versions),
        }
        return self._session.finish(metadata, {provenance.metric: report.summary()})

    def room(self) -> tuple[int | None, int | None]:
        """Return how many bytes the library takes up, and how many it may; (None, None) where nothing is kept."""
        return (None, None) if self._library is None else (self._library.usage(), self._library.max_bytes)

    def _count_unsaved(self, error: Exception) -> None:
        from dspy_cachectl.context.process import state

        with self._lock:
            self.unsaved += 1
        state.say_once("unsaved", f"a prediction cannot be kept and will be made again: {error}")


def output_hash(prediction: Any) -> str:
    """Return a short hash of what a program answered; of its type alone where it has no stable form."""
    fields = dict(prediction.items()) if isinstance(prediction, dspy.Example) else prediction
    try:
        shown = text(fields)
    except UnstableError:
        shown = f"<{type(prediction).__qualname__}>"
    return hashlib.sha256(shown.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _library(predictions: Predictions) -> Library | None:
    if predictions is False:
        return None
    if predictions is True:
        return Library()
    if isinstance(predictions, Library):
        return predictions
    if isinstance(predictions, (str, os.PathLike)):
        return Library(Path(predictions))
    raise ConfigurationError(f"predictions is True, False, a folder or a Library, not {predictions!r}")
