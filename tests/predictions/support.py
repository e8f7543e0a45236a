"""A small evaluation for the tests of the library: a model that only counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import dspy

from dspy_cachectl.fingerprints.data import Question, hash_of_questions, questions_of
from dspy_cachectl.fingerprints.models import generation_config, model_identity
from dspy_cachectl.fingerprints.programs import program_fingerprint
from dspy_cachectl.predictions.keys import SnapshotKey
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.predictions.outputs import output_of
from dspy_cachectl.predictions.rows import PredictionRow, Score
from dspy_cachectl.predictions.session import Session

METRIC = "exact"


def examples(count: int, start: int = 0) -> list[dspy.Example]:
    return [dspy.Example(question=f"q{i}", answer=f"a{i}").with_inputs("question") for i in range(start, start + count)]


def key_of(
    data: Sequence[dspy.Example],
    *,
    program: Any = None,
    model: str = "openai/test",
    temperature: float = 1.0,
    **options: Any,
) -> SnapshotKey:
    lm = dspy.LM(model, **options)
    return SnapshotKey(
        model_identity(lm),
        program_fingerprint(program or dspy.Predict("question -> answer")),
        generation_config(lm, temperature),
        hash_of_questions(questions_of(data)),
    )


def row(question: Question, repeat: int = 0, answer: Any = "a", **more: Any) -> PredictionRow:
    output = output_of(dspy.Prediction(answer=answer))
    score = Score(question.label_key, 1.0)
    return PredictionRow(
        question.example_key, question.occurrence, repeat, output=output, scores={METRIC: score}, **more
    )


def compute(session: Session, at_most: int | None = None) -> int:
    """Answer what is missing; return how many answers that took."""
    asked = [(question, repeat) for repeat in range(session.repeats) for question in session.questions]
    missing = [(question, repeat) for question, repeat in asked if session.kept_row(question, repeat) is None][:at_most]
    for question, repeat in missing:
        session.keep(row(question, repeat))
    return len(missing)


def evaluate(library: Library, data: Sequence[dspy.Example], *, key: SnapshotKey | None = None, **wish: Any) -> Session:
    """Run a whole evaluation; the session says what it did, and `computed` how much."""
    with library.open(key or key_of(data), questions_of(data), **wish) as session:
        session.computed = compute(session)  # type: ignore[attr-defined]
        session.finish({"seconds": 1.0}, {"score": 1.0})
    return session


def kill(session: Session) -> None:
    """Leave what a killed process leaves of a session: what it kept is in the journal, and nobody lives who owns it."""
    session.journal.close()
    with closing(sqlite3.connect(session.journal.path)) as journal, journal:
        journal.execute("UPDATE sessions SET owner = ?", ("0" * 32,))


def fail(session: Session, error: BaseException, *, after: int) -> None:
    """Evaluate until an error ends it."""
    with session:
        compute(session, at_most=after)
        raise error
