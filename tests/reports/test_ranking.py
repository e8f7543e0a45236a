"""Rankings: the order, the table, what each is compared with, and verdicts that hold together."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dspy_cachectl import ConfigurationError, Ranking
from dspy_cachectl.reports.texts import as_json
from dspy_cachectl.statistics.verdicts import Verdict
from tests.reports.made_up import report


def scored(right: int, n: int = 200, *, swapped: int = 0) -> list[float]:
    """So many of n are right; of two such lists with `swapped`, so many are right in one only, each way."""
    return [float(number < right - swapped or right <= number < right + swapped) for number in range(n)]


LOW, MIDDLE, HIGH = report(scored(90), name="low"), report(scored(140), name="middle"), report(scored(180), name="high")


def test_it_is_a_sequence_as_given_and_a_table_from_the_best_on() -> None:
    """Places and names lead to the reports; rows tell what each scored and how it compares."""
    ranking = Ranking((LOW, HIGH, MIDDLE))
    assert (3, LOW, HIGH) == (len(ranking), ranking[0], ranking["high"])
    assert [LOW, HIGH, MIDDLE] == list(ranking)
    assert (HIGH, MIDDLE) == tuple(ranking[1:])
    assert ["high", "middle", "low"] == [row.name for row in ranking.rows]
    assert ["BEST", "WORSE", "WORSE"] == [row.verdict for row in ranking.rows]
    first, second, _ = ranking.rows
    assert (None, None) == (first.difference, first.p_value)
    assert pytest.approx(-0.2) == second.difference
    assert (HIGH.score, HIGH.interval.low, HIGH.interval.high, 200) == (first.score, first.low, first.high, first.n)
    assert (HIGH.cost_per_answer, 0.5) == (first.cost, first.seconds)
    plain = json.loads(json.dumps(as_json(ranking.as_dict())))
    assert ("high", "high", 2) == (plain["best"], plain["reference"], len(plain["comparisons"]))


def test_against_the_best_all_pairs_count() -> None:
    """Which is the best was seen from the scores; against a baseline only the comparisons with it count."""
    reports = (LOW, HIGH, MIDDLE, report(scored(90, swapped=20), name="four"))
    assert {6} == {pair.compared_with for pair in Ranking(reports).comparisons}
    against = Ranking(reports, baseline=LOW)
    assert {(3, "low")} == {(pair.compared_with, pair.baseline) for pair in against.comparisons}
    assert ["BETTER", "BETTER", "INCONCLUSIVE", "BASELINE"] == [row.verdict for row in against.rows]
    elsewhere = Ranking((HIGH, MIDDLE), baseline=LOW)
    assert ["high", "middle", "low"] == [row.name for row in Ranking((LOW, HIGH, MIDDLE), baseline=LOW).rows]
    assert {"low", "high", "middle"} == {row.name for row in elsewhere.rows}


def test_no_difference_has_to_hold_among_all() -> None:
    """Alone an interval of 95 % lies within 0.05; among six comparisons one that holds with the others does not."""
    same, other = report(scored(180), name="same"), report(scored(180, swapped=8), name="swapped")
    alone = same.compare(other)
    assert Verdict.NO_DIFFERENCE is alone.verdict
    ranking = Ranking((same, other, LOW, MIDDLE))
    pair = ranking.comparisons[0]
    assert ("same", "swapped", 6) == (pair.baseline, pair.candidate, pair.compared_with)
    assert Verdict.INCONCLUSIVE is pair.verdict
    assert any("an interval that holds with all others" in line for line in pair.settling())
    assert () == ranking.as_good
    assert ("swapped",) == Ranking((same, other)).as_good
    assert ("swapped",) == Ranking((same, other, LOW, MIDDLE), smallest_difference=0.1).as_good


def test_the_cheapest_that_is_as_good_comes_first() -> None:
    """Which is what one wants to know; what has no known price is no cheap one."""
    best = report(scored(181, 400), name="best", cost=0.01)
    others = [report(scored(180, 400), name=f"costs {cost}", cost=cost) for cost in (0.003, 0.001)]
    unknown = report(scored(180, 400), name="a", cost=None)
    ranking = Ranking((best, unknown, *others))
    assert ("costs 0.001", "costs 0.003", "a") == ranking.as_good
    text = str(ranking)
    assert "as good, cheapest first costs 0.001, costs 0.003, a (price not known)" in " ".join(text.split())
    assert 3 == len([line for line in text.splitlines() if line.rstrip().endswith("NO DIFFERENCE")])
    assert "costs 0.001" == Ranking((unknown, *others)).best.name


def test_a_price_that_is_not_known_is_none_in_pandas() -> None:
    """A row each, under its name."""
    pytest.importorskip("pandas")
    ranking = Ranking((report(scored(181), name="best", cost=0.01), report(scored(180), name="a", cost=None)))
    assert {"best": False, "a": True} == ranking.to_pandas().set_index("name").cost.isna().to_dict()


def test_it_says_what_it_is() -> None:
    """Text, HTML and repr name every report; models that differ are no warning among models."""
    one = report(scored(90), name="one", model="openai/one")
    two = report(scored(95), name="two", model="openai/two", temperature=0.5)
    shown = Ranking((one, two), title="QA, 2 models,")
    for text in (str(shown), shown._repr_html_(), repr(shown)):
        assert "one" in text
        assert "two" in text
    assert "the models differ" not in str(shown)
    assert "the temperatures differ" in str(shown)
    assert "QA, 2 models, over 200 questions" in str(shown)
    assert "BEST" in str(Ranking((one,)))


def test_questions_that_not_all_have() -> None:
    """The order is that of the questions that all have, and the table says of how many each score is."""
    short = report(scored(90, 100), name="short")
    ranking = Ranking((short, HIGH))
    assert ["high", "short"] == [row.name for row in ranking.rows]
    assert [200, 100] == [row.n for row in ranking.rows]
    assert "over different numbers of questions" in str(ranking)


def test_what_is_no_ranking_is_refused() -> None:
    """Each says why."""
    with pytest.raises(ConfigurationError, match="one report at least"):
        Ranking(())
    with pytest.raises(ConfigurationError, match="different names"):
        Ranking((LOW, LOW))
    with pytest.raises(ConfigurationError, match="no report is called 'nobody'"):
        Ranking((LOW,))["nobody"]


@pytest.mark.exhaustive
def test_the_best_of_equals_beats_none_of_them() -> None:
    """Six equal models: the best of them is better than some in at most 5 % of rankings, not in a fifth."""
    rng, n, trials = np.random.default_rng(11), 100, 150
    alone = together = 0
    for _ in range(trials):
        difficulty = rng.uniform(0.2, 0.9, n)
        reports = [report((rng.random(n) < difficulty).astype(float).tolist(), name=str(model)) for model in range(6)]
        ranking = Ranking(reports)
        alone += any(pair.result.verdict is Verdict.WORSE for pair in ranking.comparisons)
        together += any(pair.verdict is Verdict.WORSE for pair in ranking.comparisons)
    assert alone / trials > 0.15
    assert together / trials <= 0.08
