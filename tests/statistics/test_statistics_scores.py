"""The input of the statistics: what is taken, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics import QuestionScores, ScoreTable


def test_scores_of_any_numeric_kind_are_taken() -> None:
    """Floats, ints, bools and NumPy values become floats."""
    table = ScoreTable.of([[1, True, 0.5], [np.float32(0.25), np.bool_(True), np.int64(0)]])
    assert table.questions[0].scores == (1.0, 1.0, 0.5)
    assert table.questions[1].scores == (0.25, 1.0, 0.0)


def test_one_score_per_question_needs_no_inner_list() -> None:
    """A flat sequence is one draw per question."""
    table = ScoreTable.of([1, 0.0, True])
    assert table.is_single
    assert table.means == (1.0, 0.0, 1.0)


def test_an_array_is_questions_by_draws() -> None:
    """The first axis of an array is the questions, the second the draws."""
    table = ScoreTable.of(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))
    assert (table.n, table.draws, table.repeats) == (3, 6, 2.0)


def test_each_question_weighs_the_same_whatever_its_draws() -> None:
    """The mean is the mean of the questions' means, not of all draws."""
    table = ScoreTable.of([[1, 1, 1, 1], [0]])
    assert table.mean == 0.5
    assert table.repeats == pytest.approx(2 / (1 / 4 + 1))


def test_a_failure_counts_as_zero_and_can_be_left_out() -> None:
    """None is a failed draw: 0 in the table, gone without failures, and its question with it if nothing is left."""
    table = ScoreTable.of([[1, None], [None, None], [0, 1]], questions=["a", "b", "c"])
    assert table.mean == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert table.failures == 3
    answered = table.without_failures()
    assert [(row.question, row.scores) for row in answered.questions] == [("a", (1.0,)), ("c", (0.0, 1.0))]
    assert answered.mean == 0.75


def test_leaving_out_failures_keeps_clusters() -> None:
    """A question keeps its cluster when its failed draws go."""
    table = ScoreTable.of([[1, None], [0, 1]], clusters=["x", "y"]).without_failures()
    assert table.clusters == ("x", "y")


def test_nothing_but_failures_cannot_be_left_out() -> None:
    """Without a single score left there is no score without failures."""
    with pytest.raises(ConfigurationError, match="all 2 draws failed"):
        ScoreTable.of([None, None]).without_failures()


def test_a_replayed_draw_counts_once() -> None:
    """Two scores of one draw id are one draw, with the score it had first."""
    table = ScoreTable.of([[1, 0, 0], [0, 0, 0]], draws=[["d1", "d2", "d1"], ["e", "e", "e"]])
    assert [row.scores for row in table.questions] == [(1.0, 0.0), (0.0,)]


def test_scores_in_the_unit_range_have_that_range() -> None:
    """Scores within [0, 1] are taken to be on that scale, others on the scale seen."""
    assert ScoreTable.of([0.2, 0.4]).score_range == (0.0, 1.0)
    assert ScoreTable.of([1, 5, 3]).score_range == (1.0, 5.0)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "no questions"),
        ([[1.0], []], "'1' has no draws"),
        ([[1.0, math.nan]], "question '0', draw 1, is nan"),
        ([math.inf], "is inf"),
        (["1.0"], "must be a number"),
        ([[1.0, "0"]], "question '0', draw 1, is '0'"),
        ([[1.0, object()]], "must be a number"),
    ],
)
def test_bad_scores_are_refused_with_their_place(scores: list[object], message: str) -> None:
    """Nothing that is no finite score becomes one, and the message says where it is."""
    with pytest.raises(ConfigurationError, match=message):
        ScoreTable.of(scores)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        (["a", None, "b"], r"1 of 3 questions have no cluster id \('1'\)"),
        (["a", math.nan, ""], r"2 of 3 questions have no cluster id \('1', '2'\)"),
        (["a", "b"], "3 questions and 2 cluster ids"),
        ([None, None, None], "no question has a cluster id"),
    ],
)
def test_missing_cluster_ids_are_refused(clusters: list[str | None], message: str) -> None:
    """A cluster id that is missing, NaN or empty is an error that names the questions."""
    with pytest.raises(ConfigurationError, match=message):
        ScoreTable.of([1, 0, 1], clusters=clusters)


def test_many_missing_cluster_ids_are_not_all_listed() -> None:
    """The message names the first five questions and says how many there are."""
    with pytest.raises(ConfigurationError, match=r"9 of 10 questions have no cluster id \('1', .*'5', \.\.\.\)"):
        ScoreTable.of([1] * 10, clusters=["a"] + [""] * 9)


def test_duplicate_questions_are_refused() -> None:
    """Two rows of one question would count it twice."""
    with pytest.raises(ConfigurationError, match="'q' has two rows"):
        ScoreTable.of([1, 0], questions=["q", "q"])


def test_shapes_that_do_not_match_are_refused() -> None:
    """Ids of questions and of draws must fit the scores."""
    with pytest.raises(ConfigurationError, match="2 questions and 1 question ids"):
        ScoreTable.of([1, 0], questions=["q"])
    with pytest.raises(ConfigurationError, match="draw ids for 1"):
        ScoreTable.of([1, 0], draws=[["d"]])
    with pytest.raises(ConfigurationError, match="'1' has 1 scores and 2 draw ids"):
        ScoreTable.of([1, 0], draws=[["d"], ["d", "e"]])


def test_failure_flags_must_fit_the_scores() -> None:
    """There is one flag per score; a failed draw counts with whatever the failure score is."""
    with pytest.raises(ConfigurationError, match="2 scores and 1 failure flags"):
        QuestionScores("q", (1.0, 0.0), (True,))
    assert QuestionScores("q", (1.0, -1.0), (False, True)).mean == 0.0
