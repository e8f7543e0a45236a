"""What repeats say: pass@k, pass^k, flips, and whether they were repeats at all."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics.repeats import consistency, distinct_draws, flip_rate, pass_at_k, pass_hat_k
from dspy_cachectl.statistics.variance import within_variance
from tests.statistics.simulate import fresh
from tests.statistics.tables import table_of

binary_rows = st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=3, max_size=6), min_size=1, max_size=10)


@given(binary_rows, st.integers(1, 3))
def test_pass_rates_are_those_of_all_choices_of_draws(scores: list[list[float]], k: int) -> None:
    """pass@k is the share of all choices of k draws with a pass among them, pass^k of those with nothing else."""
    table = table_of(scores)
    any_passed = [np.mean([max(chosen) for chosen in combinations(row, k)]) for row in scores]
    all_passed = [np.mean([min(chosen) for chosen in combinations(row, k)]) for row in scores]
    assert pass_at_k(table, k) == pytest.approx(float(np.mean(any_passed)))
    assert pass_hat_k(table, k) == pytest.approx(float(np.mean(all_passed)))


def test_pass_rates_are_unbiased() -> None:
    """From five draws, pass@3 and pass^3 of questions of known difficulty, on average."""
    rng = np.random.default_rng(1)
    difficulty = rng.beta(2, 1, (300, 60))
    tables = [table_of(trial) for trial in fresh(rng, difficulty, 5).tolist()]
    assert float(np.mean([pass_at_k(t, 3) for t in tables])) == pytest.approx(
        float((1 - (1 - difficulty) ** 3).mean()), abs=0.005
    )
    assert float(np.mean([pass_hat_k(t, 3) for t in tables])) == pytest.approx(float((difficulty**3).mean()), abs=0.005)


def test_too_few_draws_are_no_number() -> None:
    """Fewer than k draws of any question: NaN, not a guess; k below 1 is an error."""
    table = table_of([[1, 1, 0], [1, 0]])
    assert math.isnan(pass_at_k(table, 3))
    assert math.isnan(pass_hat_k(table, 3))
    with pytest.raises(ConfigurationError, match="k must be at least 1"):
        pass_at_k(table, 0)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=5), min_size=1, max_size=8))
def test_the_flip_rate_is_that_of_two_draws(scores: list[list[float]]) -> None:
    """The flip rate is the share of ordered pairs of draws that differ; for 0/1 scores twice the variance within."""
    table = table_of(scores)
    expected = [np.mean([a != b for a, b in permutations(row, 2)]) for row in scores if len(row) > 1]
    if not expected:
        assert math.isnan(flip_rate(table))
        assert math.isnan(consistency(table))
        return
    assert flip_rate(table) == pytest.approx(float(np.mean(expected)))
    if table.is_binary:
        within = within_variance(table)
        assert within is not None
        assert flip_rate(table) == pytest.approx(2 * within)


def test_consistency_counts_questions_whose_draws_agree() -> None:
    """Two of three repeated questions always score the same; one draw says nothing about it."""
    assert consistency(table_of([[1, 1, 1], [0, 0], [1, 0, 1], [1]])) == pytest.approx(2 / 3)


def test_replays_are_no_draws() -> None:
    """Repeats beyond the distinct draws count for nothing, and how many there were is said."""
    found = distinct_draws(6, [["x", "y"], ["x", "y", "z"]])
    assert (found.asked, found.distinct) == (6, 5)
    assert found.effective == pytest.approx(2 / (1 / 2 + 1 / 3))
    assert "1 of 6 repeats are replays" in found.sentence


def test_distinct_draws_need_no_sentence() -> None:
    """Where every repeat is a draw of its own and some differ, or none is repeated, there is nothing to say."""
    for outputs, effective in (([["x", "y"], ["x", "x"]], 2.0), ([["x"], ["x"]], 1.0)):
        found = distinct_draws(sum(map(len, outputs)), outputs)
        assert (found.effective, found.sentence) == (effective, "")


def test_draws_that_all_say_the_same_are_one() -> None:
    """As at temperature 0: distinct draws with equal outputs everywhere have K_eff = 1."""
    found = distinct_draws(6, [["x", "x", "x"], ["y", "y", "y"]])
    assert (found.distinct, found.effective) == (6, 1.0)
    assert "K_eff = 1" in found.sentence
