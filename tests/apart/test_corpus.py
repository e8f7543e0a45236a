"""Metrics of all answers together: what the set comes to, a bootstrap interval, and comparisons by question."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import numpy as np
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.manage.kept_reports import reports_in
from tests.apart.test_slices import found
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import exact, program, questions, run

__all__ = ["program"]

Counts = tuple[int, int, int]


def counts(example: dspy.Example, prediction: Any) -> Counts:
    """Of the answer yes: whether it was right to say it, whether it was said, and whether it was to be said."""
    said = prediction is not None and prediction.answer == "yes"
    wanted = example.wanted == "yes"
    return said and wanted, said, wanted


def f1(rows: Sequence[Counts]) -> float:
    """Twice what was right by what was said and what was wanted."""
    right, said, wanted = map(sum, zip(*rows, strict=True))
    return 2 * right / max(1, said + wanted)


F1 = cachectl.CorpusMetric(counts, f1)
BOTH = {"exact": exact, "f1": F1}


def wanted(count: int) -> list[dspy.Example]:
    """Questions of which two in three are to be answered by yes."""
    return [
        dspy.Example(**{**one.toDict(), "wanted": "no" if at % 3 else "yes"}).with_inputs("question")
        for at, one in enumerate(questions(count))
    ]


def by_hand(report: cachectl.EvalReport, devset: list[dspy.Example], chosen: Sequence[int] | None = None) -> float:
    """F1 of each repeat, from what the exact metric said, over the repeats."""
    chosen = range(report.n) if chosen is None else chosen
    rows = [
        [(report.questions[at].draws[repeat].score, devset[at].wanted == "yes") for at in chosen] for repeat in (0, 1)
    ]
    return statistics.mean(
        2 * sum(said and wants for said, wants in row) / (sum(said for said, _ in row) + sum(wants for _, wants in row))
        for row in rows
    )


def test_the_number_is_what_the_set_comes_to(program: dspy.Module, endpoint: Endpoint) -> None:
    """Over each repeat, with a bootstrap interval by question; nothing is bought for it."""
    devset = wanted(30)
    made = run(program, devset, BOTH, repeats=2)
    view = made.metrics["f1"]
    assert 60 == endpoint.requests
    assert view.score == pytest.approx(by_hand(made, devset), abs=1e-12)
    assert view.interval.method == "percentile bootstrap by question, 2,000 resamples, seed 0"
    rng = np.random.default_rng(7)
    drawn = [by_hand(made, devset, list(rng.integers(0, 30, 30))) for _ in range(2_000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (view.interval.low, view.interval.high) == pytest.approx((low, high), abs=0.03)
    assert view.standard_error == pytest.approx(statistics.stdev(drawn), rel=0.15)
    again = run(program, devset, BOTH, repeats=2)
    assert found(view) == found(again.metrics["f1"])
    assert 60 == endpoint.requests


def test_it_is_the_same_however_it_is_evaluated(program: dspy.Module, tmp_path: Path) -> None:
    """In random order, on a pool, and out of a file; parts of it that are merged do not tell it, nor do slices."""
    devset = wanted(12)
    options: dict[str, Any] = {"run_id": "one", "predictions": False}
    made = run(program, devset, BOTH, slices="wanted", **options)
    with ThreadPoolExecutor(2) as pool:
        others = [
            run(program, devset, BOTH, order="random", **options),
            run(program, devset, BOTH, executor=pool, shards=3, **options),
            cachectl.EvalReport.load(made.save(tmp_path / "report.json")),
        ]
    for other in others:
        assert (made.metrics["f1"].score, made.metrics["f1"].interval) == (
            other.metrics["f1"].score,
            other.metrics["f1"].interval,
        )
    assert {} == made.metrics["f1"].slices
    merged = cachectl.EvalReport.merge([run(program, devset, BOTH, shard=(at, 2), **options) for at in range(2)])
    assert ["exact"] == list(merged.metrics)
    assert "f1" in str(merged)
    assert "not known" in str(merged)


def test_two_are_compared_by_what_they_owe_to_each_question(program: dspy.Module, endpoint: Endpoint) -> None:
    """The difference is that of the two numbers, and its error that of a paired bootstrap."""
    devset = wanted(60)
    before = run(program, devset, BOTH, repeats=2, name="before")
    endpoint.configure(answers={"question": ["yes", "yes", "yes", "no", "yes"]})
    after = run(dspy.ChainOfThought("question -> answer"), devset, BOTH, repeats=2, name="after")
    compared = before.compare(after).metrics["f1"]
    expected = by_hand(after, devset) - by_hand(before, devset)
    assert compared.difference == pytest.approx(expected, abs=1e-12)
    rng = np.random.default_rng(7)
    chosen = [list(rng.integers(0, 60, 60)) for _ in range(1_000)]
    drawn = [by_hand(after, devset, one) - by_hand(before, devset, one) for one in chosen]
    assert compared.result.error.value == pytest.approx(statistics.stdev(drawn), rel=0.2)
    assert compared.result.smallest_difference == pytest.approx(0.05)


def test_what_settles_has_it_too(program: dspy.Module, tmp_path: Path) -> None:
    """At its end, of what was asked until then; what it needs of each answer is in no report."""
    settled = cachectl.settle(program, program, wanted(20), BOTH, display_progress=False)
    for one in settled.comparison.reports:
        assert one.name in {"baseline", "candidate"}
        assert "f1" in cachectl.EvalReport.load(one.save(tmp_path / "one.json")).metrics  # type: ignore[attr-defined]


def test_what_failed_counts_as_the_metric_says(program: dspy.Module) -> None:
    """It is asked what the set needs of no answer; what it needs has no place in a file."""
    devset = wanted(9)

    def fails(question: str) -> Any:
        if "question 3 " in question:
            raise ValueError("3")
        return program(question=question)

    made = run(fails, devset, BOTH, predictions=False, max_errors=9)
    said = [one.draws[0].score for one in made.questions]
    right = sum(score and one.wanted == "yes" for score, one in zip(said, devset, strict=True))
    assert made.metrics["f1"].score == pytest.approx(2 * right / (sum(said) + 3))
    assert 1 == made.metrics["f1"].failures
    assert '"value": null' in made.as_json().decode()


def test_a_total_that_cannot_be_told_is_not_known(
    program: dspy.Module, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """The evaluation is paid for, and its report there: it says which metric is not known, and why."""
    several = {"exact": exact, "none": cachectl.CorpusMetric(counts, lambda rows: 1 / 0)}
    made = run(program, wanted(4), several)
    assert ["exact"] == list(made.metrics)
    assert "the metric 'none' is not known: ZeroDivisionError" in caplog.text
    assert all(one.value is None for draw in made.draws for one in draw.others)
    (kept,) = reports_in([str(made.path)], Path(str(made.path)).parent)
    assert "not known" in str(kept)
    json.dumps(made.as_dict())
    with pytest.raises(cachectl.ConfigurationError, match="the first metric judges each answer"):
        run(program, wanted(2), {"f1": F1})
    with pytest.raises(cachectl.ConfigurationError, match=r"resamples is 2,000 or more, not 9"):
        cachectl.CorpusMetric(counts, f1, resamples=9)
    assert 4 == endpoint.requests
