"""`race()`: who has lost is asked no more. The provider's request counter is the oracle, and a simulation."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import dspy
import numpy as np
import pytest
from scipy import stats

import dspy_cachectl as cachectl
from dspy_cachectl.reports.comparison import compare_two
from dspy_cachectl.settling.racing import losers
from dspy_cachectl.statistics.looks import Bound, look_level
from dspy_cachectl.tracking.outbox import Outbox
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import exact, program, questions
from tests.reports.made_up import report
from tests.settling.test_settle import Fixed
from tests.statistics.simulate import in_full

__all__ = ["program"]


def raced(programs: Any, count: int = 120, **options: Any) -> cachectl.Race:
    return cachectl.race(programs, questions(count), exact, display_progress=False, **options)


def test_who_has_lost_is_asked_no_more(program: dspy.Module, endpoint: Endpoint) -> None:
    """Of four programs the best wins; the worse one is, the fewer questions it was asked, and none was asked twice."""
    found = raced({"one": Fixed(1), "nine": Fixed(9), "five": Fixed(5), "two": Fixed(2)})
    assert ("nine", ("nine",), "WINNER: nine") == (found.winner, found.left, found.verdict_text)
    assert found.answers == endpoint.requests < 4 * 120
    assert found["one"].report.n <= found["two"].report.n <= found["five"].report.n == found["nine"].report.n
    assert ["nine", "five"] == [one.name for one in found.runners][:2]
    assert found["one"].dropped is not None
    first = min((one for one in found.runners if one.dropped), key=lambda one: (one.dropped, one.comparison.p_value))
    expected = look_level(found.looks[: first.dropped], 120, level=1 - 0.05 / 6)
    assert pytest.approx(expected) == first.comparison.interval.level
    assert max(map(len, f"{found}\n{found.details()}".splitlines())) <= 80
    bought = endpoint.requests
    assert found.looks == raced({"nine": Fixed(9), "five": Fixed(5), "two": Fixed(2), "one": Fixed(1)}).looks
    assert bought == endpoint.requests
    assert 4 == len(found.as_dict()["runners"])


def test_equals_are_left(program: dspy.Module) -> None:
    """Two that are as good stay, and a third that is not goes; a smallest difference of half the scale ends it."""
    found = raced({"six": Fixed(6), "seven": Fixed(7), "none": Fixed(0)}, 40)
    assert ({"six", "seven"}, None) == (set(found.left), found.winner)
    assert "BUDGET SPENT" in found.verdict_text
    even = raced({"six": Fixed(6), "seven": Fixed(7)}, 40, smallest_difference=0.5)
    assert "NO DIFFERENCE OF SIZE 0.5" in even.verdict_text


def test_an_optimizers_finalists(program: dspy.Module) -> None:
    """The ones that it scored highest, by what DSPy's optimizers leave on what they return."""
    candidates = [{"score": 10.0 * right, "program": Fixed(right)} for right in (1, 8, 3, 2)]
    found = raced(SimpleNamespace(candidate_programs=candidates), finalists=3)
    assert "finalist 1" == found.winner
    assert {"finalist 1", "finalist 2", "finalist 3"} == {one.name for one in found.runners}
    assert Fixed(8).right == 8 > max(one.report.score for one in found.runners[1:]) * 10


@pytest.mark.parametrize("wrong", [{}, {"one": Fixed(1)}, [], {"one": Fixed(1), "two": Fixed}, program])
def test_what_is_no_race_is_refused(program: dspy.Module, endpoint: Endpoint, wrong: Any) -> None:
    """With 0 requests."""
    with pytest.raises(cachectl.ConfigurationError, match="a race is of two programs"):
        raced(wrong)
    assert 0 == endpoint.requests


@pytest.mark.parametrize("trials", [2_000, in_full(10_000)])
def test_eight_equal_programs_have_no_winner(trials: int) -> None:
    """With 200 questions and ten looks, at most 5.5% of the races drop even one of them."""
    rng, count, n = np.random.default_rng(trials), 8, 200
    pairs = len(list(combinations(range(count), 2)))
    answers = np.empty((trials, count, n), dtype=bool)
    for trial in range(trials):  # questions are hard or easy for all
        answers[trial] = rng.random((count, n)) < rng.beta(2, 1, n)
    looks = list(range(20, n + 1, 20))
    is_wrong = np.zeros(trials, dtype=bool)
    for place in range(len(looks)):
        seen = answers[:, :, : looks[place]]
        leader = seen.sum(axis=2).argmax(axis=1)
        best = np.take_along_axis(seen, leader[:, None, None], axis=1)
        wins, losses = (best & ~seen).sum(axis=2), (~best & seen).sum(axis=2)
        both, fewer = wins + losses, np.minimum(wins, losses)
        p_values = np.minimum(1, 2 * stats.binom.cdf(fewer, both, 0.5) - stats.binom.pmf(fewer, both, 0.5))
        level = look_level(looks[: place + 1], n, level=1 - 0.05 / pairs)
        is_wrong |= ((p_values < 1 - level) & (wins > losses)).any(axis=1)
        if place == 9:
            _check(seen[0], int(leader[0]), level)
    assert is_wrong.mean() <= 0.055


def _check(seen: Any, leader: int, level: float) -> None:
    """What is simulated is what is shipped: who is dropped at a level, of the reports of one trial."""
    reports = [report(row.astype(float).tolist(), name=str(place)) for place, row in enumerate(seen)]
    others = [one for place, one in enumerate(reports) if place != leader]
    found = losers(
        others, lambda other, level: compare_two(other, reports[leader], level=level), at=lambda told: level, told=0
    )
    wins = [(int((seen[leader] & ~row).sum()), int((~seen[leader] & row).sum())) for row in seen]
    expected = {
        str(place)
        for place, (won, lost) in enumerate(wins)
        if won > lost and stats.binomtest(lost, won + lost).pvalue - stats.binom.pmf(lost, won + lost, 0.5) < 1 - level
    }
    assert expected == {one.baseline for one in found}


def test_what_a_rejection_had_of_the_error_passes_on() -> None:
    """Of three levels the later ones are lower, and the worst program is dropped first (Holm)."""
    leader = report([1.0] * 90 + [0.0] * 10, name="leader")
    others = [report([1.0] * right + [0.0] * (100 - right), name=str(right)) for right in (82, 60, 30)]
    asked: list[int] = []

    def at(told: int) -> float:
        asked.append(told)
        return look_level([100], 100, bound=Bound.POCOCK, level=1 - 0.05 / (3 - told))

    found = list(losers(others, lambda other, level: compare_two(other, leader, level=level), at=at, told=0))
    assert ["30", "60", "82"] == [one.baseline for one in found]
    assert {0, 1, 2} == set(asked)


def test_a_race_is_logged_with_who_was_left_at_each_look(program: dspy.Module) -> None:
    """Without a server it waits in the outbox: what each was dropped by, and the verdict over all."""
    found = raced({"one": Fixed(1), "nine": Fixed(9), "two": Fixed(2)})
    outcome = cachectl.log_to_mlflow(found, timeout=0)
    assert "pending" == outcome.status
    (waiting,) = [one for one in Outbox().waiting() if one.uid == outcome.uid]
    points = {(one.key, one.step): one.value for one in waiting.read().metrics}
    left = [points["dspy_cachectl/look/left", step] for step in range(len(found.looks))]
    assert (1.0, sorted(left, reverse=True)) == (left[-1], left)
