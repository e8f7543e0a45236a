"""What an evaluation hands to its report: the results in the order of the data set, and what they are made of."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import dspy

from dspy_cachectl._version import __version__
from dspy_cachectl.accounting.ledger import Stats
from dspy_cachectl.context.phases import PhaseRun
from dspy_cachectl.evaluation.kept_predictions import AnswerCost
from dspy_cachectl.evaluation.observed_program import preview_of
from dspy_cachectl.fingerprints.data import Question
from dspy_cachectl.reports.measurement import Provenance
from dspy_cachectl.reports.results import DrawResult, QuestionResult
from dspy_cachectl.reports.texts import plural


def question_results(
    questions: Sequence[Question],
    devset: Sequence[dspy.Example],
    groups: Sequence[Any] | None,
    slices: Sequence[tuple[str, ...]] | None,
    results: Sequence[Sequence[DrawResult | None]],
    *,
    failure_score: float,
) -> tuple[QuestionResult, ...]:
    """Return the results of an evaluation in the order of its data set.

    Args:
        questions: The questions.
        devset: Their examples.
        groups: The cluster of each, or None.
        slices: The slices that each is in, or None.
        results: The answers to each; None where there is none.
        failure_score: What counts for an answer that there is not.
    """
    missing = DrawResult(score=failure_score, failed="dspy.Evaluate returned no answer")
    return tuple(
        QuestionResult(
            question=question_id(question),
            preview=preview_of(example),
            draws=tuple(draw or missing for draw in draws),
            cluster=None if groups is None else str(groups[number]),
            labels=question.label_key[:16],
            slices=() if slices is None else slices[number],
        )
        for number, (question, example, draws) in enumerate(zip(questions, devset, results, strict=True))
    )


def question_id(question: Question) -> str:
    """Return what identifies a question in a report."""
    return question.example_key[:16] + (f"#{question.occurrence}" if question.occurrence else "")


def draw_of(made: AnswerCost, output: str = "") -> DrawResult:
    """Return an answer that was made now, which has no score yet.

    Args:
        made: What it is made of.
        output: A hash of what the program answered; empty where it failed.
    """
    tokens = made.tokens
    return DrawResult(
        score=0.0,
        draw="+".join(sorted(made.draws)),
        output=output,
        requests=made.tally.requests,
        tokens=tokens["prompt_tokens"] + tokens["completion_tokens"],
        cached_tokens=tokens["cached_tokens"],
        cache_creation_tokens=tokens["cache_creation_tokens"],
        reasoning_tokens=tokens["reasoning_tokens"],
        cost=made.cost,
        seconds=made.seconds,
        oldest=min(made.created, default=None),
        newest=max(made.created, default=None),
        troubles=made.troubles,
        spent=made.spent,
        strayed=made.strayed,
    )


def provenance(facts: Mapping[str, Any], run: PhaseRun, *, seconds: float, missing: int) -> Provenance:
    """Return what a report's score is made of.

    Args:
        facts: What is known of its program, data, metric and answers, by the fields of a provenance.
        run: The phase that it ran in.
        seconds: How long it took.
        missing: How many answers it lacks.
    """
    return Provenance(
        **facts,
        run_id=run.run_id,
        phase=run.name,
        policy=run.policy.name,
        counters=run.stats.as_dict(),
        seconds=seconds,
        created=time.time(),
        missing=missing,
        versions={"dspy-cachectl": __version__, "dspy": version("dspy"), "litellm": version("litellm")},
    )


def so_far(stats: Stats, *, score: float, failed: int) -> str:
    """Return what the progress bar says: score so far, requests, what was spent and saved."""
    parts = [f"score {score:.3f}"]
    if failed:
        parts.append(f"{failed} failed")
    parts.append(f"{plural(stats.requests, 'request')}, {stats.served:,} served")
    parts.append(f"{plural(stats.tokens_spent, 'token')} spent, {stats.tokens_saved:,} saved")
    if stats.cost_spent or stats.cost_saved:
        parts.append(f"${stats.cost_spent:.4f} spent, ${stats.cost_saved:.4f} saved")
    return " · ".join(parts)
