"""Several reports by several metrics: each score stands there, and p-values allow for all pairs by all metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dspy
import numpy as np
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.reports.results import OtherMetric
from dspy_cachectl.statistics.power import holm
from dspy_cachectl.statistics.verdicts import Verdict
from tests.apart.test_metrics import judged, length
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import exact, program, questions
from tests.settling.test_settle import Fixed

__all__ = ["program"]

SHARES = {"low": (0.4, 0.5), "middle": (0.5, 0.6), "high": (0.6, 0.3)}


def three(n: int = 150, **more: list[float]) -> list[cachectl.EvalReport]:
    """Three reports, the last of which is the best by its first metric and the worst by the other."""
    rng = np.random.default_rng(7)
    return [
        judged(
            (rng.random(n) < first).astype(float).tolist(), {"short": (rng.random(n) < other).tolist(), **more}, name
        )
        for name, (first, other) in SHARES.items()
    ]


def alone(before: cachectl.EvalReport, after: cachectl.EvalReport, metric: str) -> cachectl.Comparison:
    return before.metrics[metric].compare(after.metrics[metric])


def test_several_reports_are_compared_by_each_metric() -> None:
    """Results are those of two reports alone, adjusted among three pairs by two metrics, and NO DIFFERENCE likewise."""
    reports = three()
    compared = cachectl.compare({report.name: report for report in reports})
    assert ["exact_match", "short"] == list(compared.metrics)
    pairs = [(one, other) for place, one in enumerate(reports) for other in reports[place + 1 :]]
    wanted = [alone(one, other, metric) for one, other in pairs for metric in ("exact_match", "short")]
    adjusted = iter(holm([pair.p_value for pair in wanted]))
    for (one, other), plain in zip(pairs, compared.pairs, strict=True):
        assert 3 == plain.compared_with
        for metric in ("exact_match", "short"):
            found = compared.metrics[metric][one.name, other.name]
            assert (alone(one, other, metric).result, 6) == (found.result, found.compared_with)
            assert next(adjusted) == found.adjusted_p_value
            assert plain.metrics[metric].adjusted_p_value == found.adjusted_p_value
    assert ("high", "middle") == (compared.best, compared.metrics["short"].best)
    assert [one.metrics["short"].score for one in reports] == [one.score for one in compared.metrics["short"].reports]
    for text in (str(compared), compared.details()):
        assert "Pairs by exact_match (as if there were no other metric)" in text
        assert "Pairs by metric (verdicts hold together, among 6 comparisons)" in text
        assert all(len(line) <= 80 for line in text.splitlines())
        for report in reports:
            assert f"{report.metrics['short'].score:.3f}" in text


@pytest.mark.parametrize("of", ["the best", "a baseline"])
def test_a_ranking_has_each_metric_of_each_model(of: str) -> None:
    """Against the best by the first metric all three pairs count, by both; against a baseline two pairs."""
    low, middle, high = three()
    ranking = cachectl.Ranking((low, middle, high), baseline=None if of == "the best" else low)
    among = {"the best": 6, "a baseline": 4}[of]
    assert {among} == {pair.metrics["short"].compared_with for pair in ranking.comparisons}
    for row in ranking.rows:
        report, short = ranking[row.name], row.metrics["short"]
        assert (report.metrics["short"].score, report.metrics["short"].interval.low) == (short.score, short.low)
        if report is ranking.reference:
            assert ("REFERENCE", None) == (short.verdict, short.p_value)
        else:
            pair = alone(ranking.reference, report, "short")
            assert pair.difference == short.difference
            assert pair.p_value < (short.p_value or 0.0)
    table = ranking.to_pandas().set_index("name")
    assert [row.metrics["short"].verdict for row in ranking.rows] == list(table["verdict.short"])
    assert ranking.as_dict()["rows"][0]["metrics"]["short"]["score"] == ranking.rows[0].metrics["short"].score
    text = " ".join(str(ranking).split())
    assert f"verdicts hold together, among {among} comparisons)" in text
    assert f"hold together, among {among // 2} comparisons, as if there were no other metric" in text
    assert all(len(line) <= 80 for line in str(ranking).splitlines())


def test_among_many_reports_and_metrics_luck_is_no_win() -> None:
    """Alone, and by its metrics alone, a pair wins at p = 0.02; among all of them it does not."""
    first = [0.0, 1.0] * 50
    second = [1.0, 1.0] * 7 + [0.0, 1.0] * 43
    others: dict[str, Any] = dict.fromkeys(("one", "two"), first)
    reports = {
        name: judged(scores, others, name) for name, scores in {"a": first, "b": second, "c": first, "d": first}.items()
    }
    pair = reports["a"].compare(reports["b"])
    assert Verdict.BETTER is pair.verdict
    assert Verdict.BETTER is pair.metrics["exact_match"].verdict
    together = cachectl.compare(reports).metrics["exact_match"]["a", "b"]
    assert (Verdict.INCONCLUSIVE, 18) == (together.verdict, together.compared_with)


def test_what_is_not_known_of_one_model_is_said() -> None:
    """A price that only some have: their scores stand there, and no comparison with who has none."""
    cost = [OtherMetric("cost", "measure:cost")]
    reports = [
        replace(one, provenance=replace(one.provenance, others=(*one.provenance.others, *cost)))
        for one in three(150, other=[0.5] * 150)
    ]
    reports[0] = replace(
        reports[0],
        questions=tuple(
            replace(question, draws=tuple(replace(draw, cost=None) for draw in question.draws))
            for question in reports[0].questions
        ),
    )
    ranking = cachectl.Ranking(tuple(reports))
    assert {"low": False, "middle": True, "high": True} == {row.name: "cost" in row.metrics for row in ranking.rows}
    assert [line.split() for line in str(ranking).splitlines() if "not known" in line] == [
        ["cost", "(US$)", "low", "not", "known", "–", "–"]
    ]
    compared = cachectl.compare({report.name: report for report in reports})
    assert [("middle", "high")] == [(pair.baseline, pair.candidate) for pair in compared.metrics["cost"].pairs]


def test_the_smallest_difference_is_that_of_the_first_metric() -> None:
    """Another metric has another unit: a twentieth of its own scale, which its verdict names."""
    points = {"points": [0.0, 100.0] * 200}
    before = judged([0.0, 1.0] * 200, points, "before")
    pair = before.compare(judged([0.0, 1.0] * 200, points, "after"), smallest_difference=0.02)
    assert {"exact_match": "NO DIFFERENCE OF SIZE 0.02", "points": "NO DIFFERENCE OF SIZE 5"} == {
        name: one.verdict_text for name, one in pair.metrics.items()
    }


def test_one_metric_needs_no_more_words() -> None:
    """Nothing is said of metrics where there is but one."""
    reports = [cachectl.EvalReport(one.name, one.questions, replace(one.provenance, others=())) for one in three()]
    for shown in (cachectl.Ranking(tuple(reports)), cachectl.compare({one.name: one for one in reports})):
        assert "metric" not in str(shown)
    assert {} == cachectl.compare({one.name: one for one in reports}).metrics
    assert "verdict.short" not in cachectl.Ranking(tuple(reports)).to_pandas()


def test_what_is_settled_or_raced_shows_all_metrics(program: dspy.Module, endpoint: Endpoint) -> None:
    """The first decides, and the others are told of the same answers: at the level of the last look, or of no look."""
    several = {"exact": exact, "length": length}
    settled = cachectl.settle(Fixed(3), Fixed(9), questions(60), several, display_progress=False)
    alone = settled.baseline.metrics["length"].compare(settled.candidate.metrics["length"])
    found = settled.comparison.metrics["length"]
    assert (alone.difference, settled.comparison.interval.level) == (found.difference, found.interval.level)
    raced = cachectl.race({"a": Fixed(3), "b": Fixed(9)}, questions(60), several, display_progress=False)
    assert 2 * settled.asked == endpoint.requests
    for shown in (settled, raced):
        for text in (str(shown), shown.details()):
            assert "length" in text
            assert "etrics of the same answers (" in text
