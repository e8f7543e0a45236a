"""The split of the variance, and the advice that follows from it."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, strategies as st

from dspy_cachectl.statistics.variance import standard_error, variance_split
from tests.statistics.simulate import fresh, in_full
from tests.statistics.tables import table_of


@pytest.mark.parametrize("repeats", [2, in_full(5)])
def test_the_split_is_unbiased(repeats: int) -> None:
    """For Beta(2,1) difficulties the parts are 1/6 within and 1/18 between questions, on average."""
    rng = np.random.default_rng(repeats)
    scores = fresh(rng, rng.beta(2, 1, (400, 100)), repeats)
    splits = [variance_split(table_of(trial)) for trial in scores.tolist()]
    assert float(np.mean([split.within for split in splits])) == pytest.approx(1 / 6, abs=0.002)
    assert float(np.mean([split.between for split in splits])) == pytest.approx(1 / 18, abs=0.002)
    assert float(np.mean([split.share_within for split in splits])) == pytest.approx(0.75, abs=0.01)


def test_the_split_is_unbiased_for_unequal_repeats() -> None:
    """Half of the questions with two draws and half with six: the harmonic mean keeps the parts right."""
    rng = np.random.default_rng(4)
    scores = fresh(rng, rng.beta(2, 1, (400, 100)), 6).tolist()
    splits = [variance_split(table_of([row[: 2 + 4 * (i % 2)] for i, row in enumerate(t)])) for t in scores]
    assert float(np.mean([split.within for split in splits])) == pytest.approx(1 / 6, abs=0.002)
    assert float(np.mean([split.between for split in splits])) == pytest.approx(1 / 18, abs=0.002)


@pytest.mark.parametrize(
    ("repeats", "error"),
    [in_full(1, 0.0333), in_full(2, 0.0264), (5, 0.0211), in_full(10, 0.0190), in_full(100, 0.0169)],
)
def test_the_error_falls_with_repeats_to_the_floor(repeats: int, error: float) -> None:
    """n = 200: the error falls from .0333 to .0169 as K grows, and the floor under it is sqrt(Var(x)/n) = .0167."""
    rng = np.random.default_rng(5)
    tables = [table_of(trial) for trial in fresh(rng, rng.beta(2, 1, (100, 200)), repeats).tolist()]
    assert float(np.mean([standard_error(table).value for table in tables])) == pytest.approx(error, rel=0.02)
    if repeats == 1:
        return
    # Its square is what is estimated without a bias.
    squares = [(variance_split(table).limit_error or 0.0) ** 2 for table in tables]
    assert math.sqrt(float(np.mean(squares))) == pytest.approx(0.0167, rel=0.02)


def test_the_parts_add_up() -> None:
    """(b + w/K)/n is the squared standard error, and sqrt(b/n) the limit."""
    rng = np.random.default_rng(6)
    table = table_of(rng.normal(rng.normal(size=(60, 1)), 0.5, (60, 4)).tolist())
    split = variance_split(table)
    assert split.within is not None
    assert split.between is not None
    assert (split.between + split.within / 4) / 60 == pytest.approx(standard_error(table).value ** 2)
    assert split.limit_error == pytest.approx(math.sqrt(split.between / 60))


def test_repeats_do_not_remove_what_clusters_share() -> None:
    """The limit of a clustered error is above that of independent questions by what the clusters share."""
    rng = np.random.default_rng(7)
    scores = rng.normal(np.repeat(rng.normal(size=30), 5)[:, None], 1.0, (150, 3)).tolist()
    tables = table_of(scores), table_of(scores, clusters=np.repeat(np.arange(30), 5).tolist())
    plain, clustered = map(variance_split, tables)
    error, clustered_error = (standard_error(table).value for table in tables)
    assert clustered.within == plain.within
    assert plain.limit_error is not None
    assert clustered.limit_error is not None
    assert clustered.limit_error > plain.limit_error
    assert clustered_error**2 - clustered.limit_error**2 == pytest.approx(error**2 - plain.limit_error**2)


def test_noisy_draws_ask_for_repeats() -> None:
    """Where the draws make up most of the variance, more repeats are advised, and what they would bring."""
    rng = np.random.default_rng(8)
    advice = variance_split(table_of(fresh(rng, np.full((1, 200), 0.5), 2)[0].tolist())).advice
    assert "twice the repeats (4)" in advice
    assert advice.endswith("more repeats do nearly as much.")


def test_hard_and_easy_questions_ask_for_questions() -> None:
    """Where the questions make up most of the variance, more of them are advised."""
    rows = [[1, 1, 1, 1]] * 50 + [[0, 0, 0, 0]] * 45 + [[1, 1, 0, 1]] * 5
    advice = variance_split(table_of(rows)).advice
    assert advice.endswith("More questions, not more repeats.")


def test_advice_comes_true() -> None:
    """The error foretold for twice the repeats is the one found with them."""
    rng = np.random.default_rng(9)
    scores = fresh(rng, rng.beta(2, 1, (100, 200)), 6)
    foretold = [
        float(re.findall(r"standard error from [\d.]+ to ([\d.]+),", variance_split(table_of(trial)).advice)[0])
        for trial in scores[..., :3].tolist()
    ]
    found = [standard_error(table_of(trial)).value for trial in scores.tolist()]
    assert float(np.mean(foretold)) == pytest.approx(float(np.mean(found)), rel=0.01)


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ([1, 0, 1, 1], "2 repeats would tell"),
        ([[1, 1], [1, 1]], "no spread to divide"),
        ([[1, 0]], "says nothing of the spread"),
    ],
)
def test_what_cannot_be_split_is_said(scores: list[object], says: str) -> None:
    """One draw per question, equal scores or one question: no invented parts, and a sentence that says why."""
    split = variance_split(table_of(scores))
    assert split.share_within is None
    assert says in split.advice


@given(st.lists(st.lists(st.floats(-10, 10), min_size=2, max_size=5), min_size=2, max_size=20))
def test_the_parts_are_never_negative(scores: list[list[float]]) -> None:
    """Variances are not negative, the share lies in [0, 1], and the limit is at most the error."""
    table = table_of(scores)
    split = variance_split(table)
    assert split.within is not None
    assert split.between is not None
    assert split.limit_error is not None
    assert split.within >= 0.0
    assert split.between >= 0.0
    assert split.share_within is None or 0.0 <= split.share_within <= 1.0
    assert split.limit_error <= standard_error(table).value + 1e-12
