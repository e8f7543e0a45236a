"""A small evaluation for the tests of the library: a model that only counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy

from dspy_cachectl.predictions import (
    Library,
    Row,
    Score,
    Session,
    SnapshotKey,
    Unit,
    dataset_hash,
    generation_config,
    model_identity,
    output_of,
    program_fingerprint,
    units,
)

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
        dataset_hash(data),
    )


def row(unit: Unit, repeat: int = 0, answer: Any = "a", **more: Any) -> Row:
    output = output_of(dspy.Prediction(answer=answer))
    score = Score(unit.label_key, 1.0)
    return Row(unit.example_key, unit.occurrence, repeat, output=output, scores={METRIC: score}, **more)


def compute(session: Session, at_most: int | None = None) -> int:
    """Answer what is missing; return how many answers that took."""
    missing = list(session.missing())[:at_most]
    for unit, repeat in missing:
        session.keep(row(unit, repeat))
    return len(missing)


def evaluate(library: Library, data: Sequence[dspy.Example], *, key: SnapshotKey | None = None, **wish: Any) -> Session:
    """Run a whole evaluation; the session says what it did, and `computed` how much."""
    with library.open(key or key_of(data), units(data), **wish) as session:
        session.computed = compute(session)  # type: ignore[attr-defined]
        session.finish({"seconds": 1.0}, {"score": 1.0})
    return session


def fail(session: Session, error: BaseException, *, after: int) -> None:
    """Evaluate until an error ends it."""
    with session:
        compute(session, at_most=after)
        raise error
